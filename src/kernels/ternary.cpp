// y = γ·round(clip(w/γ, −1, 1)), γ = f16(ε + mean|w|): see ternary.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// The nearest half-precision number, ties to even; infinity from 65520 on; NaN stays.
inline float roundedToHalf(float x) {
  const float magnitude = x < 0 ? -x : x;
  if (!(magnitude < 65520.0f)) return magnitude - magnitude == 0 ? x * __builtin_inff() : x;
  // Half precision keeps 11 bits, and nothing below 2⁻²⁴. Adding and taking away 1.5·2²³ units of the last kept bit
  // leaves a multiple of that bit.
  union { float value; uint32_t bits; } unit = {magnitude < 6.103515625e-05f ? 6.103515625e-05f : magnitude};
  unit.bits &= 0x7f800000u;                          // 2^exponent
  const float shift = unit.value * (12582912.0f / 1024);
  volatile float shifted = x + shift;
  return shifted - shift;
}

void ternary(Arguments a) {
  constexpr int64_t CHUNK = 16384;
  constexpr int SIDES = 16;  // sums side by side, for the compiler's vectors
  const float* w = a.floats();
  float *y = a.floats(), *scale = a.floats();
  const int64_t n = a.size();
  const double epsilon = a.number();
  const int64_t chunks = (n + CHUNK - 1) / CHUNK;
  double* sums = static_cast<double*>(lowbit_scratch(0, chunks * 8));
  parallel(chunks, [=](int64_t chunk) {
    double parts[SIDES] = {};
    int64_t i = chunk * CHUNK;
    const int64_t end = i + CHUNK < n ? i + CHUNK : n;
    for (; i + SIDES <= end; i += SIDES)
      for (int s = 0; s < SIDES; s++) parts[s] += __builtin_fabsf(w[i + s]);
    for (; i < end; i++) parts[0] += __builtin_fabsf(w[i]);
    double sum = 0;
    for (int s = 0; s < SIDES; s++) sum += parts[s];
    sums[chunk] = sum;
  });
  double total = 0;
  for (int64_t chunk = 0; chunk < chunks; chunk++) total += sums[chunk];
  const float gamma = roundedToHalf(static_cast<float>(epsilon + (n == 0 ? 0 : total / static_cast<double>(n))));
  scale[0] = gamma;

  parallel(chunks, [=](int64_t chunk) {
    // The second operand survives where one is NaN.
    const auto value = [gamma](f32v x) { return splat(gamma) * round(max(splat(-1), min(splat(1), x / splat(gamma)))); };
    int64_t i = chunk * CHUNK;
    const int64_t end = i + CHUNK < n ? i + CHUNK : n;
    for (; i + LANES <= end; i += LANES) store(y + i, value(load(w + i)));
    const int rest = static_cast<int>(end - i);
    if (rest > 0) store(y + i, value(load(w + i, rest)), rest);
  });
}

// Straight through: dw = dy.
void ternaryBackward(Arguments a) {
  constexpr int64_t TASK = 16384;
  a.floats();
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dw = a.floats();
  const int64_t n = a.size();
  if (!dw) return;
  parallel((n + TASK - 1) / TASK, [=](int64_t task) {
    const int64_t end = (task + 1) * TASK < n ? (task + 1) * TASK : n;
    for (int64_t i = task * TASK; i < end; i++) dw[i] = dy[i];
  });
}

}  // namespace lowbit::LOWBIT_BODY
