// The nearest point of e8p: see nearest-e8p.ts and formats/e8p.ts, whose search this is.
#include "../formats/e8p.h"
#include "abi.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace e8p {

constexpr int64_t TASK = 1024;  // vectors of one task
constexpr int N = E8P::VECTOR;

// The best point so far: its gain −|a − p|²/2, its number by digits, the places of minus signs and the shift.
struct Best {
  float gain = -__builtin_inff();
  int digits = 0;
  uint32_t minus = 0, shift = 0;
};

constexpr int POWERS[N] = {1, 3, 9, 27, 81, 243, 729, 2187};

// Points of one shift, which x has lost already.
inline void search(const float* y, uint32_t shift, Best& best) {
  float a[N];
  int order[N];
  uint32_t signs = 0, odd = 0;
  float all = 0, squares = 0;
  for (int i = 0; i < N; i++) {
    const bool minus = y[i] < 0;
    a[i] = minus ? -y[i] : y[i];
    all += a[i];
    squares += a[i] * a[i];
    signs |= static_cast<uint32_t>(minus) << i;
    odd ^= minus;
    int at = i;
    for (; at > 0 && a[order[at - 1]] < a[i]; at--) order[at] = order[at - 1];
    order[at] = i;
  }
  const int least = order[N - 1];
  const float start = -0.5f * squares;
  const auto take = [&](float gain, int digits, uint32_t minus) {
    if (gain > best.gain) best = {gain, digits, minus, shift};
  };

  // All 1/2 but `threes` of 3/2 behind `fives` of 5/2: an odd number of minus signs where `threes` is odd.
  const auto tryOrders = [&](int fives, int most) {
    float top = fives ? 2 * a[order[0]] : 0;
    int digits = fives ? 2 * POWERS[order[0]] : 0;
    for (int threes = 0; threes <= most; threes++) {
      const bool wrong = (static_cast<uint32_t>(threes) & 1) != odd;
      const float gain = start + 0.5f * all - (wrong ? a[least] : 0) + top - static_cast<float>(1 + threes + 3 * fives);
      take(gain, digits, wrong ? signs ^ 1u << least : signs);
      if (threes == most) break;
      top += a[order[fives + threes]];
      digits += POWERS[order[fives + threes]];
    }
    return top;
  };
  const float four = tryOrders(0, 4);
  tryOrders(1, 1);

  // Five of 3/2, not at all places.
  const bool wrong = odd == 0;
  if (start + 0.5f * all - (wrong ? a[least] : 0) + four + a[order[4]] - 6 <= best.gain) return;
  for (const auto& low : e8pTable.triples) {
    const int i = low[0], j = low[1], k = low[2];
    int digits = 3280 - POWERS[i] - POWERS[j] - POWERS[k];  // 3280: all 3/2
    int turned = 0;
    float gain = start + 1.5f * all - (a[i] + a[j] + a[k]) - 6;
    if (wrong) {
      float cheapest = __builtin_inff();
      for (int n = 0; n < N; n++) {
        const float price = n == i || n == j || n == k ? a[n] : 3 * a[n];
        if (price < cheapest) cheapest = price, turned = n;
      }
      gain -= cheapest;
    }
    take(gain, digits, wrong ? signs ^ 1u << turned : signs);
  }
}

inline uint32_t nearest(const float* x) {
  Best best;
  for (uint32_t shift = 0; shift < 2; shift++) {
    float y[N];
    for (int i = 0; i < N; i++) y[i] = x[i] - (shift ? -0.25f : 0.25f);
    search(y, shift, best);
  }
  return e8pTable.numbers[best.digits] | (best.minus & 127) << 8 | best.shift << 15;
}

}  // namespace e8p

void nearestE8p(Arguments a) {
  int32_t* codes = a.integers();
  float* points = a.floats();
  const float* x = a.floats();
  const int64_t n = a.size();
  parallel((n + e8p::TASK - 1) / e8p::TASK, [=](int64_t task) {
    for (int64_t i = task * e8p::TASK; i < n && i < (task + 1) * e8p::TASK; i++) {
      const uint32_t code = e8p::nearest(x + i * e8p::N);
      codes[i] = static_cast<int32_t>(code);
      E8P::point(code, points + i * e8p::N);
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
