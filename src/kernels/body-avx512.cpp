// Kernels for processors with AVX-512 F, BW, DQ, VL and VNNI.
#define LOWBIT_BODY avx512
#define LOWBIT_AVX512
#include "body.h"
