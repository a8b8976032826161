// y = γ·round(clip(w/γ, −1, 1)), γ = f16(ε + mean|w|) or f16(max(ε, median|w|)): see ternary.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

// Element (n−1)/2 of |w| in ascending order, NaN where there is one: found digit by digit of its bits, whose order is
// that of the magnitudes, by counting the elements that share the digits found before.
inline float medianMagnitude(const float* w, int64_t n) {
  constexpr int PARTS = 16, WIDTH = 11, DIGITS = 1 << WIDTH;
  constexpr uint32_t INFINITE = 0x7f800000u;
  if (n == 0) return 0;
  int64_t* counts = static_cast<int64_t*>(lowbit_scratch(0, PARTS * (DIGITS + 1) * 8));  // the last counts NaN
  const int64_t length = (n + PARTS - 1) / PARTS;
  int64_t place = (n - 1) / 2;
  union { uint32_t bits; float value; } median = {0};
  constexpr int SHIFTS[] = {20, 10, 0};  // 31 bits: 11, 10 and 10
  for (const int shift : SHIFTS) {
    const int above = shift == 20 ? 31 : shift + 10;
    const uint32_t found = median.bits >> above;
    parallel(PARTS, [=](int64_t part) {
      int64_t* own = counts + part * (DIGITS + 1);
      for (int i = 0; i <= DIGITS; i++) own[i] = 0;
      const int64_t end = (part + 1) * length < n ? (part + 1) * length : n;
      for (int64_t i = part * length; i < end; i++) {
        union { float value; uint32_t bits; } x = {w[i]};
        x.bits &= 0x7fffffffu;
        if (x.bits > INFINITE) own[DIGITS]++;
        if (x.bits >> above == found) own[x.bits >> shift & ((1u << (above - shift)) - 1)]++;
      }
    });
    const auto total = [=](int digit) {
      int64_t sum = 0;
      for (int part = 0; part < PARTS; part++) sum += counts[part * (DIGITS + 1) + digit];
      return sum;
    };
    if (total(DIGITS) > 0) return __builtin_nanf("");
    uint32_t digit = 0;
    for (int64_t count; place >= (count = total(static_cast<int>(digit))); digit++) place -= count;
    median.bits |= digit << shift;
  }
  return median.value;
}

void ternary(Arguments a) {
  const float* w = a.floats();
  float *y = a.floats(), *scale = a.floats();
  const int64_t n = a.size();
  const double epsilon = a.number();
  const bool median = a.size() == 1;
  const auto larger = [epsilon](double x) { return x < epsilon ? epsilon : x; };  // NaN stays
  const double magnitude = median ? larger(medianMagnitude(w, n)) : epsilon + meanMagnitude(w, n);
  const float gamma = half(nearestHalf(static_cast<float>(magnitude)));
  scale[0] = gamma;
  // The second operand survives where one is NaN.
  eachOf(w, y, n, [=](f32v x) { return splat(gamma) * round(max(splat(-1), min(splat(1), x / splat(gamma)))); });
}

void ternaryBackward(Arguments a) {
  a.floats();
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dw = a.floats();
  straightThrough(dy, dw, a.size());
}

}  // namespace lowbit::LOWBIT_BODY
