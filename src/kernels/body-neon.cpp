// Kernels for 64-bit ARM with dot products of bytes (ARMv8.2-A): the plain
// arrays of body-portable.cpp, and by name what compilers do not find.
#define LOWBIT_BODY neon
#include "body.h"
