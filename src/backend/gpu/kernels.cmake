# The modules of kernels: "basic", "route", "state", "attend_*", "one_*" and "wide_*" for each type of cache, "flash_*" for sizes of heads, "pack_*", "experts_*" and "stream_*" for each row of pack.def. A module is a few #defines and a
# header module_*.h; from it come host C for the emulator, text that OpenCL and NVRTC compile at run time, and, where nvcc is, machine
# code for CUDA. Sets gpu_sources.
set(gpu_dir ${PROJECT_SOURCE_DIR}/src/backend/gpu)
set(gpu_out ${PROJECT_BINARY_DIR}/generated/gpu)
set(gpu_sources "")
set(gpu_modules "")
set(gpu_module_list "")

function(gpu_module NAME HEADER)
  set(defines "")
  set(text "")
  foreach(d ${ARGN})
    string(APPEND defines "#define ${d}\n")
    string(APPEND text "#define ${d}\\n")
  endforeach()
  file(CONFIGURE OUTPUT ${gpu_out}/emu_${NAME}.c CONTENT "#include \"backend/gpu/emu/compat_emu.h\"\n${defines}#include \"backend/gpu/kernels/${HEADER}\"\nEMU_MODULE(${NAME})\n" @ONLY)
  file(CONFIGURE OUTPUT ${gpu_out}/${NAME}.cu CONTENT "#include \"backend/gpu/cuda/compat_cuda.h\"\n${defines}#include \"backend/gpu/kernels/${HEADER}\"\n" @ONLY)
  set(gpu_sources ${gpu_sources} ${gpu_out}/emu_${NAME}.c PARENT_SCOPE)
  set(gpu_modules ${gpu_modules} ${NAME} PARENT_SCOPE)
  set(gpu_module_list "${gpu_module_list}MODULE(${NAME}, \"${text}\", \"${HEADER}\")\n" PARENT_SCOPE)
endfunction()

gpu_module(basic module_basic.h)
gpu_module(route module_route.h)
gpu_module(state module_state.h)
gpu_module(attend_f16 module_attend.h "KV f16" "KV_TYPE 0" "KV_N 8")
gpu_module(one_f16 module_one.h "KV f16" "KV_TYPE 0" "KV_N 8")
gpu_module(wide_f16 module_wide.h "KV f16" "KV_TYPE 0" "KV_N 8")
gpu_module(attend_f32 module_attend.h "KV f32" "KV_TYPE 1" "KV_N 4")
gpu_module(one_f32 module_one.h "KV f32" "KV_TYPE 1" "KV_N 4")
gpu_module(wide_f32 module_wide.h "KV f32" "KV_TYPE 1" "KV_N 4")
gpu_module(attend_q8_0 module_attend.h "KV q8_0" "KV_TYPE 2" "KV_N 16")
gpu_module(one_q8_0 module_one.h "KV q8_0" "KV_TYPE 2" "KV_N 16")
gpu_module(wide_q8_0 module_wide.h "KV q8_0" "KV_TYPE 2" "KV_N 16")
gpu_module(flash_64 module_flash.h "HD 64")
gpu_module(flash_128 module_flash.h "HD 128")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${gpu_dir}/pack.def)
file(STRINGS ${gpu_dir}/pack.def gpu_packs REGEX "^PACK")
foreach(row ${gpu_packs})
  string(REGEX MATCH "^PACK\\(([a-z0-9_]+), ([0-9]+), ([0-9]+), ([0-9]+), ([0-9]+)\\)" ignored "${row}")
  gpu_module(pack_${CMAKE_MATCH_1} module_pack.h "FMT ${CMAKE_MATCH_1}" "FMT_CODE ${CMAKE_MATCH_2}" "FMT_BOOK ${CMAKE_MATCH_3}"
             "FMT_SCALE ${CMAKE_MATCH_4}" "FMT_OFFSET ${CMAKE_MATCH_5}")
  gpu_module(experts_${CMAKE_MATCH_1} module_experts.h "FMT ${CMAKE_MATCH_1}" "FMT_CODE ${CMAKE_MATCH_2}" "FMT_BOOK ${CMAKE_MATCH_3}"
             "FMT_SCALE ${CMAKE_MATCH_4}" "FMT_OFFSET ${CMAKE_MATCH_5}")
  gpu_module(stream_${CMAKE_MATCH_1} module_stream.h "FMT ${CMAKE_MATCH_1}" "FMT_CODE ${CMAKE_MATCH_2}" "FMT_BOOK ${CMAKE_MATCH_3}"
             "FMT_SCALE ${CMAKE_MATCH_4}" "FMT_OFFSET ${CMAKE_MATCH_5}")
endforeach()
file(CONFIGURE OUTPUT generated/gpu_modules.inc CONTENT "${gpu_module_list}" @ONLY)

# Every header of the kernels as text: TEXT("name", bytes).
file(GLOB gpu_headers CONFIGURE_DEPENDS ${gpu_dir}/kernels/*.h ${gpu_dir}/opencl/compat_*.h ${gpu_dir}/cuda/compat_*.h
     ${gpu_dir}/metal/compat_*.h)
add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/generated/gpu_text.inc
                   COMMAND ${CMAKE_COMMAND} -DOUT=${PROJECT_BINARY_DIR}/generated/gpu_text.inc "-DFILES=${gpu_headers}" -P ${gpu_dir}/text.cmake
                   DEPENDS ${gpu_headers} ${gpu_dir}/text.cmake VERBATIM)
list(APPEND gpu_sources ${PROJECT_BINARY_DIR}/generated/gpu_text.inc)

# Machine code for CUDA, one fat binary per module, where nvcc is.
# That takes minutes, so only if asked for: -DKAGARI_CUDA_ARCHS="80;86;89;90;100;120".
set(KAGARI_CUDA_ARCHS "" CACHE STRING "CUDA architectures to compile kernels for, the first also as PTX; empty: none, NVRTC compiles at run time")
find_program(KAGARI_NVCC nvcc PATHS /usr/local/cuda/bin)
if(KAGARI_CUDA_ARCHS AND NOT KAGARI_NVCC)
  message(FATAL_ERROR "KAGARI_CUDA_ARCHS is set, but there is no nvcc")
endif()
set(gpu_images "")
if(KAGARI_NVCC AND KAGARI_CUDA_ARCHS)
  set(flags "")
  foreach(a ${KAGARI_CUDA_ARCHS})
    list(APPEND flags -gencode=arch=compute_${a},code=sm_${a})
  endforeach()
  list(GET KAGARI_CUDA_ARCHS 0 a)
  list(APPEND flags -gencode=arch=compute_${a},code=compute_${a})
  set(asm "")
  foreach(m ${gpu_modules})
    add_custom_command(OUTPUT ${gpu_out}/${m}.fatbin
                       COMMAND ${KAGARI_NVCC} -fatbin -std=c++17 ${flags} -I${PROJECT_SOURCE_DIR}/src ${gpu_out}/${m}.cu -o ${gpu_out}/${m}.fatbin
                       DEPENDS ${gpu_headers} ${gpu_out}/${m}.cu VERBATIM)
    list(APPEND gpu_fatbins ${gpu_out}/${m}.fatbin)
    string(APPEND gpu_images "IMAGE(${m}, \"${gpu_out}/${m}.fatbin\")\n")
  endforeach()
  set_property(SOURCE ${gpu_dir}/cuda/cuda_images.c PROPERTY OBJECT_DEPENDS "${gpu_fatbins}")
endif()
file(CONFIGURE OUTPUT generated/gpu_images.inc CONTENT "${gpu_images}" @ONLY)
