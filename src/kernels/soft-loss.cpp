// Divergence of a student's distribution from a teacher's, per token: see soft-loss.ts.
#include "abi.h"
#include "logarithm.h"
#include "row-sums.h"
#include "simd.h"
#include "threads.h"
#include "top-k.h"

namespace lowbit::LOWBIT_BODY {
namespace divergences {

constexpr int64_t ROWS = 4;  // of one task

// log Σ e^l; NaN where the largest is infinite.
inline float logSum(const float* l, int64_t n) {
  f32v tops = splat(-__builtin_inff());
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) tops = max(load(l + i), tops);
  float top = largest(tops);
  for (; i < n; i++)
    if (l[i] > top) top = l[i];
  f32v sums = splat(0.0f);
  for (i = 0; i + LANES <= n; i += LANES) sums = sums + exp(load(l + i) - splat(top));
  double total = sum(sums);
  if (i < n) {
    float rest[LANES];
    store(rest, exp(load(l + i, static_cast<int>(n - i)) - splat(top)));
    for (int64_t r = 0; i + r < n; r++) total += rest[r];
  }
  return static_cast<float>(static_cast<double>(top - top) + top + logarithm(total));
}

// Two rows of logits, less their log-sums, and where T is: 1 in it, 0 elsewhere, or the same for all words.
struct Rows {
  const float *own, *other;
  float ownSum, otherSum;
  const float* chosen;
  float all;
};

// Of some words: q, h, and the terms of the loss.
struct Words {
  f32v q, h, loss;
};

// Words i … of a row; `rest` of them where that is not 0.
LOWBIT_INLINE Words words(const Rows& rows, int64_t i, int rest) {
  const f32v a = part(rows.own + i, rest) - splat(rows.ownSum), b = part(rows.other + i, rest) - splat(rows.otherSum);
  const f32v q = exp(a), p = exp(b);
  const f32v in = rows.chosen ? part(rows.chosen + i, rest) : splat(rows.all);
  const f32v half = splat(0.5f), product = q * (a - b);
  return {q, less(half, in, product, q - p), less(half, in, product - q + p, p * (b - a) - p + q)};
}

// Σ of the terms of the loss, or of h.
inline double total(const Rows& rows, int64_t n, bool loss) {
  f32v sums = splat(0.0f);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const Words w = words(rows, i, 0);
    sums = sums + (loss ? w.loss : w.h);
  }
  double all = sum(sums);
  if (i < n) {
    const Words w = words(rows, i, static_cast<int>(n - i));
    float rest[LANES];
    store(rest, loss ? w.loss : w.h);
    for (int64_t r = 0; i + r < n; r++) all += rest[r];
  }
  return all;
}

// The teacher's k likeliest words of a row, as Rows wants them. `keys` and `chosen` have room for a row.
inline void choose(const float* teacher, int64_t n, int64_t k, uint32_t* keys, float* chosen) {
  for (int64_t i = 0; i < n; i++) keys[i] = orderOf(teacher[i]);
  TopK top = topK(keys, n, k);
  for (int64_t i = 0; i < n; i++) chosen[i] = keys[i] > top.least || (keys[i] == top.least && top.ties-- > 0) ? 1.0f : 0.0f;
}

// Room for the choice of each thread, where there is one to make.
struct Room {
  uint32_t* keys;
  float* chosen;
};

inline Room roomFor(int64_t vocabulary, int64_t k) {
  if (k == 0 || k == vocabulary) return {nullptr, nullptr};
  const int64_t bytes = lowbit_threads() * vocabulary * 4;
  return {static_cast<uint32_t*>(lowbit_scratch(0, bytes)), static_cast<float*>(lowbit_scratch(1, bytes))};
}

inline Rows rowsOf(const float* logits, const float* teacher, int64_t t, int64_t vocabulary, int64_t k, Room room) {
  Rows rows = {logits + t * vocabulary, teacher + t * vocabulary, 0, 0, nullptr, k == 0 ? 0.0f : 1.0f};
  if (room.chosen) {
    float* chosen = room.chosen + lowbit_thread() * vocabulary;
    choose(rows.other, vocabulary, k, room.keys + lowbit_thread() * vocabulary, chosen);
    rows.chosen = chosen;
  }
  return rows;
}

}  // namespace divergences

void softLoss(Arguments a) {
  using namespace divergences;
  const float *logits = a.floats(), *teacher = a.floats();
  float *loss = a.floats(), *sums = a.floats();
  const int64_t tokens = a.size(), vocabulary = a.size(), k = a.size();
  const Room room = roomFor(vocabulary, k);
  parallel((tokens + ROWS - 1) / ROWS, [=](int64_t task) {
    const int64_t end = (task + 1) * ROWS < tokens ? (task + 1) * ROWS : tokens;
    for (int64_t t = task * ROWS; t < end; t++) {
      Rows rows = rowsOf(logits, teacher, t, vocabulary, k, room);
      sums[2 * t] = rows.ownSum = logSum(rows.own, vocabulary);
      sums[2 * t + 1] = rows.otherSum = logSum(rows.other, vocabulary);
      loss[t] = static_cast<float>(total(rows, vocabulary, true));
    }
  });
}

void softLossBackward(Arguments a) {
  using namespace divergences;
  const float *logits = a.floats(), *teacher = a.floats();
  a.floats();
  const float *sums = a.floats(), *dLoss = a.floats();
  float* dLogits = a.floats();
  a.floats();
  const int64_t tokens = a.size(), vocabulary = a.size(), k = a.size();
  if (!dLogits) return;
  const Room room = roomFor(vocabulary, k);
  parallel((tokens + ROWS - 1) / ROWS, [=](int64_t task) {
    const int64_t end = (task + 1) * ROWS < tokens ? (task + 1) * ROWS : tokens;
    for (int64_t t = task * ROWS; t < end; t++) {
      Rows rows = rowsOf(logits, teacher, t, vocabulary, k, room);
      rows.ownSum = sums[2 * t];
      rows.otherSum = sums[2 * t + 1];
      const f32v pull = splat(static_cast<float>(total(rows, vocabulary, false))), factor = splat(dLoss[t]);
      float* out = dLogits + t * vocabulary;
      int64_t i = 0;
      for (; i + LANES <= vocabulary; i += LANES) {
        const Words w = words(rows, i, 0);
        store(out + i, factor * (w.h - w.q * pull));
      }
      const int rest = static_cast<int>(vocabulary - i);
      if (rest > 0) {
        const Words w = words(rows, i, rest);
        store(out + i, factor * (w.h - w.q * pull), rest);
      }
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
