// What the operations of Adam share: the limit on the gradient and the step of
// a vector of weights, every operation rounded to float32 on its own. See adamw.ts.
#pragma once
#include "abi.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

// A sum of squares that is infinite or NaN says that this step's gradient is worth nothing.
inline bool isFinite(float x) { return x - x == 0; }

// What the gradient is multiplied by so that its norm is at most maxNorm; 1 when there is no limit.
inline double gradientFactor(float squaredNorm, double maxNorm) {
  if (!(maxNorm > 0)) return 1;
  const double ratio = maxNorm / (__builtin_sqrt(static_cast<double>(squaredNorm)) + 1e-6);
  return ratio >= 1 ? 1 : ratio;
}

// Scales of groups of codes, and what a group is multiplied by; both 0 where its largest magnitude is next to nothing.
constexpr float NEXT_TO_NOTHING = 1.1754943508222875e-38f;  // 2⁻¹²⁶
inline float groupScale(float most) { return most < NEXT_TO_NOTHING ? 0.0f : most; }
inline float inverseScale(float most) { return most < NEXT_TO_NOTHING ? 0.0f : 1.0f / most; }

struct Adam {
  struct State {
    f32v w, first, second;
  };
  f32v scale, keep1, take1, keep2, take2, bias1, bias2, small, step, pull;

  // Reads rate, β₁, β₂, ε, decay, both corrections and the limit.
  Adam(Arguments& a, float squaredNorm) {
    const auto constant = [](double x) { return splat(static_cast<float>(x)); };
    step = constant(a.number());
    const double beta1 = a.number(), beta2 = a.number();
    keep1 = constant(beta1), take1 = constant(1 - beta1), keep2 = constant(beta2), take2 = constant(1 - beta2);
    small = constant(a.number());
    pull = constant(a.number());
    bias1 = constant(a.number());
    bias2 = constant(a.number());
    scale = constant(gradientFactor(squaredNorm, a.number()));
  }

  // The second moment alone.
  LOWBIT_INLINE f32v second(f32v before, f32v g) const {
    g = g * scale;
    return keep2 * before + take2 * (g * g);
  }

  LOWBIT_INLINE State next(State s, f32v g) const {
    s.second = second(s.second, g);
    g = g * scale;
    s.first = keep1 * s.first + take1 * g;
    const f32v mean = s.first / bias1, deviation = sqrt(s.second / bias2);
    s.w = s.w - step * (mean / (deviation + small) + pull * s.w);
    return s;
  }
};

}  // namespace lowbit::LOWBIT_BODY
