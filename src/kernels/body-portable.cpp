// Kernels for any processor: plain arrays of four, which the compiler turns
// into the vectors that its target always has (SSE2, NEON).
#define LOWBIT_BODY portable
#include "body.h"
