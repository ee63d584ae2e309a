# giltop_embed(TARGET NAME FILE): gives TARGET a header NAME.embed.h that holds FILE as a string
# literal, so that one binary is all there is to install.
function(giltop_embed target name file)
  set(out ${PROJECT_BINARY_DIR}/embed)
  file(MAKE_DIRECTORY ${out})
  add_custom_command(OUTPUT ${out}/${name}.embed.h
    COMMAND ${CMAKE_COMMAND} -DINPUT=${PROJECT_SOURCE_DIR}/${file}
      -DOUTPUT=${out}/${name}.embed.h -DNAME=${name} -P ${PROJECT_SOURCE_DIR}/cmake/embed_file.cmake
    DEPENDS ${PROJECT_SOURCE_DIR}/${file} ${PROJECT_SOURCE_DIR}/cmake/embed_file.cmake
    COMMENT "Embedding ${file}" VERBATIM)
  add_custom_target(${target}_files DEPENDS ${out}/${name}.embed.h)
  add_library(${target} INTERFACE)
  target_include_directories(${target} INTERFACE ${out})
  add_dependencies(${target} ${target}_files)
endfunction()
