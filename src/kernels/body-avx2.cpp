// Kernels for processors with AVX2, FMA and F16C.
#define LOWBIT_BODY avx2
#define LOWBIT_AVX2
#include "body.h"
