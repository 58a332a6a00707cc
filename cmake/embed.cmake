# cmake -DOUT=FILE.c -DHEADER=x/y.h -DVARIABLES="a;b" -Da="FILE;..." -Db="FILE;..." -P embed.cmake
# Text files as C arrays that end in NUL; several files of one variable are joined.
set(source "#include \"${HEADER}\"\n")
foreach(variable IN LISTS VARIABLES)
  set(bytes "")
  foreach(file IN LISTS ${variable})
    file(READ ${file} hex HEX)
    string(APPEND bytes ${hex})
  endforeach()
  string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(APPEND source "const char ${variable}[] = {\n${bytes}0\n};\n")
endforeach()
file(WRITE ${OUT} "${source}")
