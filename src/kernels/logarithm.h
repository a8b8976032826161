// ln x for the few places that need one per row. Scalar and in 64 bits, so that
// the result is right to the last place once it is rounded to float32.
#pragma once
#include <stdint.h>

namespace lowbit::LOWBIT_BODY {

// ln x = e·ln2 + 2·artanh((m−1)/(m+1)), x = 2^e·m, √½ ≤ m < √2. The series of artanh is cut after the 15th power:
// |error| < 2·0.1716^17/17 < 2e-14. −infinity at 0, NaN below it; infinity and NaN stay.
inline double logarithm(double x) {
  if (!(x > 0)) return x == 0 ? -__builtin_inf() : __builtin_nan("");
  if (x - x != 0) return x;  // infinity
  union { double value; uint64_t bits; } number = {x};
  int exponent = 0;
  if (number.bits < (uint64_t{1} << 52)) {  // subnormal
    number.value *= 18014398509481984.0;    // 2^54
    exponent = -54;
  }
  exponent += static_cast<int>(number.bits >> 52) - 1023;
  number.bits = (number.bits & ((uint64_t{1} << 52) - 1)) | (uint64_t{1023} << 52);
  double m = number.value;
  if (m > 1.4142135623730951) {
    m *= 0.5;
    exponent++;
  }
  const double f = (m - 1) / (m + 1), g = f * f;
  double series = 1.0 / 15;
  series = series * g + 1.0 / 13;
  series = series * g + 1.0 / 11;
  series = series * g + 1.0 / 9;
  series = series * g + 1.0 / 7;
  series = series * g + 1.0 / 5;
  series = series * g + 1.0 / 3;
  series = series * g + 1.0;
  return exponent * 0.69314718055994531 + 2 * f * series;
}

}  // namespace lowbit::LOWBIT_BODY
