// int2: see integer.ts for the byte layout.
#pragma once
#include "integer.h"

namespace lowbit::LOWBIT_BODY {

inline void decodeInt2(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) { decodeInteger<2>(w, row, from, n, out); }

}  // namespace lowbit::LOWBIT_BODY
