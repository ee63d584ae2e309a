# Installs what SOURCES/package-lock.json names into DIR/node_modules.
file(MAKE_DIRECTORY ${DIR})
foreach(name package.json package-lock.json .npmrc)
  configure_file(${SOURCES}/${name} ${DIR}/${name} COPYONLY)
endforeach()
execute_process(COMMAND ${NPM} ci --ignore-scripts --prefer-offline --no-fund --no-audit --loglevel=error
  WORKING_DIRECTORY ${DIR} RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
if(failed)
  message("${said}")
  message(FATAL_ERROR
    "npm could not get the packages of ${SOURCES}/package-lock.json: without a network they must be in its cache")
endif()
file(TOUCH ${DIR}/packages.stamp)
