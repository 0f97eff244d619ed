# Toolchain file: builds for aarch64 Linux with Debian's cross compiler and runs tests in qemu. The libraries for that processor lie
# in the build folder's sysroot/, where .ci/aarch64 unpacks them.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
# "max" has every instruction that a tier asks for
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu)

get_property(trying GLOBAL PROPERTY IN_TRY_COMPILE) # CMake's own trials read this file too, in folders of their own
if(NOT trying)
  set(libraries ${CMAKE_BINARY_DIR}/sysroot/usr/lib/aarch64-linux-gnu)
  set(ENV{PKG_CONFIG_LIBDIR} ${libraries}/pkgconfig)
  set(ENV{PKG_CONFIG_SYSROOT_DIR} ${CMAKE_BINARY_DIR}/sysroot)
  set(older ${CMAKE_BINARY_DIR}/sysroot/lib/aarch64-linux-gnu) # where some packages still have theirs
  set(CMAKE_BUILD_RPATH ${libraries} ${older})
  set(CMAKE_EXE_LINKER_FLAGS_INIT "-L${older} -Wl,-rpath-link,${libraries}:${older},--disable-new-dtags") # what libraries need is looked for there, too
endif()
