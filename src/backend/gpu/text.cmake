# Writes the FILES as C: TEXT("name", 0x.., ...), each with a zero at its end. Run by the build.
set(all "")
foreach(f ${FILES})
  get_filename_component(name ${f} NAME)
  file(READ ${f} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND all "TEXT(\"${name}\", ${bytes}0)\n")
endforeach()
file(WRITE ${OUT} "${all}")
