// Kernels for processors with AVX-512 F, BW, DQ and VL.
#define LOWBIT_BODY avx512
#define LOWBIT_AVX512
#include "body.h"
