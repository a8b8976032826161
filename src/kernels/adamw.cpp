// One step of AdamW: see adamw.ts. Every operation is rounded to float32 on its own, in the order written there.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void adamw(Arguments a) {
  constexpr int64_t TASK = 4096;
  float* w = a.floats();
  const float* gradient = a.floats();
  float *first = a.floats(), *second = a.floats();
  const float* norm = a.floats();
  const int64_t n = a.size();
  const double rate = a.number(), beta1 = a.number(), beta2 = a.number(), epsilon = a.number(), decay = a.number();
  const double correction1 = a.number(), correction2 = a.number(), maxNorm = a.number();
  double clip = 1;
  if (maxNorm > 0) {
    const double ratio = maxNorm / (__builtin_sqrt(static_cast<double>(norm[0])) + 1e-6);
    if (!(ratio >= 1)) clip = ratio;  // NaN stays
  }
  const auto constant = [](double x) { return splat(static_cast<float>(x)); };
  const f32v scale = constant(clip), keep1 = constant(beta1), take1 = constant(1 - beta1), keep2 = constant(beta2), take2 = constant(1 - beta2);
  const f32v bias1 = constant(correction1), bias2 = constant(correction2), small = constant(epsilon), step = constant(rate), pull = constant(decay);

  parallel((n + TASK - 1) / TASK, [=](int64_t task) {
    struct State {
      f32v w, first, second;
    };
    const auto next = [=](State s, f32v g) -> State {
      g = g * scale;
      s.first = keep1 * s.first + take1 * g;
      s.second = keep2 * s.second + take2 * (g * g);
      const f32v mean = s.first / bias1, deviation = sqrt(s.second / bias2);
      s.w = s.w - step * (mean / (deviation + small) + pull * s.w);
      return s;
    };
    int64_t i = task * TASK;
    const int64_t end = i + TASK < n ? i + TASK : n;
    for (; i + LANES <= end; i += LANES) {
      const State s = next({load(w + i), load(first + i), load(second + i)}, load(gradient + i));
      store(w + i, s.w);
      store(first + i, s.first);
      store(second + i, s.second);
    }
    const int rest = static_cast<int>(end - i);
    if (rest > 0) {
      const State s = next({load(w + i, rest), load(first + i, rest), load(second + i, rest)}, load(gradient + i, rest));
      store(w + i, s.w, rest);
      store(first + i, s.first, rest);
      store(second + i, s.second, rest);
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
