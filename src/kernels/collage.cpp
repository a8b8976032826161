// One step of AdamW on pairs of bf16 numbers: see collage.ts.
#include "abi.h"
#include "bfloat16.h"
#include "moments.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {
namespace pairs {

struct Pair {
  f32v high, rest;
};

// high = R(a + b), and high + rest = a + b exactly. The two differences are bf16 numbers (Dekker, 1971): rounding them
// would change nothing.
LOWBIT_INLINE Pair twoSum(f32v a, f32v b) {
  const f32v s = roundBf16(a + b), sizeA = abs(a), sizeB = abs(b);
  const f32v large = less(sizeA, sizeB, b, a), small = less(sizeA, sizeB, a, b);
  return {s, small - (s - large)};
}

// `sum` = twoSum(a.high, b)
LOWBIT_INLINE Pair grow(Pair sum, f32v rest) { return twoSum(sum.high, roundBf16(rest + sum.rest)); }

struct Constants {
  f32v scale, keep1, take1, keep2, rest2, take2, small, pull, bias1, bias2, rate;
};

struct State {
  f32v w, rest, first;
  Pair second;
};

// Lane by lane 1 where Δ is not 0; where bf16 alone would lose it; where it is lost here.
struct Lost {
  f32v moved, plainly, here;
};

template <bool PLUS> LOWBIT_INLINE State next(const Constants& c, State s, f32v gradient, Lost& lost) {
  const f32v g = roundBf16(gradient * c.scale);
  s.first = roundBf16(roundBf16(c.keep1 * s.first) + c.take1 * g);
  const f32v share = c.take2 * (g * g), v = s.second.high;
  if (PLUS) {
    const f32v exact = v * c.keep2, product = roundBf16(exact);  // 16 bits: exact in float32
    const f32v cross = roundBf16(s.second.rest * c.keep2 + v * c.rest2);
    const Pair kept = twoSum(product, roundBf16((exact - product) + cross));
    s.second = grow(twoSum(kept.high, roundBf16(share)), kept.rest);
  } else {
    s.second.high = roundBf16(roundBf16(c.keep2 * v) + share);
  }
  const f32v mean = s.first / c.bias1, deviation = sqrt(s.second.high / c.bias2);
  const f32v delta = roundBf16(splat(0.0f) - c.rate * (mean / (deviation + c.small) + c.pull * s.w));
  const Pair plain = twoSum(s.w, delta), after = grow(plain, s.rest);
  const f32v one = splat(1.0f), zero = splat(0.0f), moved = less(zero, abs(delta), one, zero);
  lost.moved = lost.moved + moved;
  lost.plainly = lost.plainly + less(zero, abs(plain.high - s.w), zero, moved);
  lost.here = lost.here + less(zero, abs(after.high - s.w) + abs(after.rest - s.rest), zero, moved);
  s.w = after.high;
  s.rest = after.rest;
  return s;
}

}  // namespace pairs

void collage(Arguments a) {
  using namespace pairs;
  constexpr int64_t TASK = 4096;
  float* w = a.floats();
  const float* gradient = a.floats();
  const auto halves = [&] { return reinterpret_cast<uint16_t*>(a.integers()); };
  uint16_t *rest = halves(), *first = halves(), *second = halves(), *secondRest = halves();
  float* lost = a.floats();
  const float norm = a.floats()[0];
  const int64_t n = a.size();
  const bool plus = a.number() != 0;
  if (!isFinite(norm)) return;
  const auto constant = [](double x) { return splat(static_cast<float>(x)); };
  Constants c;
  c.rate = constant(a.number());
  const double beta1 = a.number();
  c.keep1 = constant(beta1), c.take1 = constant(1 - beta1);
  c.keep2 = constant(a.number());
  c.rest2 = constant(a.number());
  c.take2 = constant(a.number());
  c.small = constant(a.number());
  c.pull = constant(a.number());
  c.bias1 = constant(a.number());
  c.bias2 = constant(a.number());
  c.scale = constant(gradientFactor(norm, a.number()));

  const int64_t tasks = (n + TASK - 1) / TASK;
  float* counts = static_cast<float*>(lowbit_scratch(0, tasks * 3 * 4));
  parallel(tasks, [=](int64_t task) {
    Lost sums = {splat(0.0f), splat(0.0f), splat(0.0f)};
    const int64_t end = n < (task + 1) * TASK ? n : (task + 1) * TASK;
    // LANES of each tensor.
    const auto step = [&](float* w, const float* gradient, uint16_t* rest, uint16_t* first, uint16_t* second, uint16_t* secondRest) {
      State s = {load(w), loadBf16(rest), loadBf16(first), {loadBf16(second), splat(0.0f)}};
      if (plus) s.second.rest = loadBf16(secondRest);
      s = plus ? next<true>(c, s, load(gradient), sums) : next<false>(c, s, load(gradient), sums);
      store(w, s.w);
      storeBf16(rest, s.rest);
      storeBf16(first, s.first);
      storeBf16(second, s.second.high);
      if (plus) storeBf16(secondRest, s.second.rest);
    };
    int64_t i = task * TASK;
    for (; i + LANES <= end; i += LANES) step(w + i, gradient + i, rest + i, first + i, second + i, plus ? secondRest + i : nullptr);
    if (i < end) {
      const size_t left = static_cast<size_t>(end - i);
      float someW[LANES] = {}, someGradient[LANES] = {};
      uint16_t some[4][LANES] = {};
      uint16_t* from[4] = {rest + i, first + i, second + i, secondRest + i};
      const int count = plus ? 4 : 3;
      __builtin_memcpy(someW, w + i, left * 4);
      __builtin_memcpy(someGradient, gradient + i, left * 4);
      for (int k = 0; k < count; k++) __builtin_memcpy(some[k], from[k], left * 2);
      step(someW, someGradient, some[0], some[1], some[2], some[3]);
      __builtin_memcpy(w + i, someW, left * 4);
      for (int k = 0; k < count; k++) __builtin_memcpy(from[k], some[k], left * 2);
    }
    counts[3 * task] = sum(sums.moved);
    counts[3 * task + 1] = sum(sums.plainly);
    counts[3 * task + 2] = sum(sums.here);
  });
  for (int k = 0; k < 3; k++) {
    double total = 0;
    for (int64_t task = 0; task < tasks; task++) total += counts[3 * task + k];
    lost[k] = static_cast<float>(lost[k] + total);
  }
}

}  // namespace lowbit::LOWBIT_BODY
