// The formats that kernels read, by the number in their descriptor: the order
// of this list is the one that TypeScript writes (src/backends). f32 is 0 and
// i32 is 1; neither is ever packed.
#pragma once
#include "bf16.h"
#include "f16.h"
#include "int2.h"
#include "int3.h"
#include "int4.h"
#include "int6.h"
#include "int8.h"
#include "tq1_0.h"
#include "tq2_0.h"

namespace lowbit::LOWBIT_BODY {

// Weights from … from+n−1 of a row, as floats: exactly the values of the format's .ts.
inline void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
  switch (static_cast<int>(w.format)) {
    case 2: return decodeF16(w, row, from, n, out);
    case 3: return decodeBf16(w, row, from, n, out);
    case 4: return decodeInt8(w, row, from, n, out);
    case 5: return decodeInt6(w, row, from, n, out);
    case 6: return decodeInt4(w, row, from, n, out);
    case 7: return decodeInt3(w, row, from, n, out);
    case 8: return decodeInt2(w, row, from, n, out);
    case 9: return decodeTq2_0(w, row, from, n, out);
    case 10: return decodeTq1_0(w, row, from, n, out);
    default:
      for (int64_t i = 0; i < n; i++) out[i] = __builtin_nanf("");
  }
}

}  // namespace lowbit::LOWBIT_BODY
