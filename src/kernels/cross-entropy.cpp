// Softmax cross-entropy of a linear layer: see cross-entropy.ts.
//
// The logits exist one tile of tokens × vocabulary at a time. The forward pass keeps a running maximum and a running
// sum per token; the backward pass makes each tile again, turns it into dl in place and multiplies.
#include "../formats/formats.h"
#include "abi.h"
#include "gemm-bf16.h"
#include "logarithm.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {
namespace losses {

// A tile of logits, 4 MiB: large enough for the products, small enough for the last-level cache.
constexpr int64_t TOKENS = 2048, VOCABULARY = 512;
constexpr int64_t ROWS = 16;  // of one task
const float INFINITE = __builtin_inff();

// Scratch slots; 6 and 7 are gemm's.
enum Slot { LOGITS, WEIGHTS, STATES, VALID, X, DX };

template <typename T> T* scratch(Slot slot, int64_t count) { return static_cast<T*>(lowbit_scratch(slot, count * static_cast<int64_t>(sizeof(T)))); }

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls f(first, end) for groups of rows, on all threads.
template <typename F> inline void eachRows(int64_t rows, const F& f) {
  parallel((rows + ROWS - 1) / ROWS, [&](int64_t task) { f(task * ROWS, smaller((task + 1) * ROWS, rows)); });
}

// Rows first … first+count−1 of w as floats: where they are, or decoded.
inline const float* weightRows(WeightView w, int64_t first, int64_t count, int64_t dim) {
  if (w.floats) return w.floats + first * dim;
  float* rows = scratch<float>(WEIGHTS, smaller(VOCABULARY, static_cast<int64_t>(w.packed->rows)) * dim);
  eachRows(count, [&](int64_t from, int64_t end) {
    for (int64_t r = from; r < end; r++) decodeWeights(*w.packed, first + r, 0, dim, rows + r * dim);
  });
  return rows;
}

// Of one token, over the logits so far.
struct State {
  float top;     // largest
  float target;  // the target's logit
  double sum;    // Σ exp(logit − top)
};

inline void addLogits(State& state, const float* logits, int64_t n) {
  f32v tops = splat(-INFINITE);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) tops = max(load(logits + i), tops);
  float top = largest(tops);
  for (; i < n; i++)
    if (logits[i] > top) top = logits[i];
  if (!(top > state.top)) top = state.top;
  // Where every logit so far is −infinity, exp(logit − 0) keeps them at 0 instead of NaN.
  const f32v base = splat(top > -INFINITE ? top : 0);
  f32v sums = splat(0);
  for (i = 0; i + LANES <= n; i += LANES) sums = sums + exp(load(logits + i) - base);
  double added = sum(sums);
  float rest[LANES];
  if (i < n) store(rest, exp(load(logits + i, static_cast<int>(n - i)) - base));
  for (int64_t r = 0; i + r < n; r++) added += rest[r];
  store(rest, exp(splat(state.top) - base));
  state.sum = state.sum * rest[0] + added;
  state.top = top;
}

// row ← factor·(exp(logit − logSum) − [v = target]); `target` counts from the row's first element.
inline void differentiate(float* row, int64_t n, float logSum, float factor, int64_t target) {
  const f32v base = splat(logSum), scale = splat(factor);
  float own = 0;
  if (target >= 0 && target < n) {
    float lanes[LANES];
    store(lanes, exp(splat(row[target]) - base));
    own = factor * (lanes[0] - 1);
  }
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(row + i, scale * exp(load(row + i) - base));
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    store(row + i, scale * exp(load(row + i, rest) - base), rest);
  }
  if (target >= 0 && target < n) row[target] = own;
}

}  // namespace losses

void crossEntropy(Arguments a) {
  using namespace losses;
  const float* x = a.floats();
  const WeightView w = a.weight();
  const int32_t* targets = a.integers();
  float *loss = a.floats(), *logSums = a.floats();
  const int64_t tokens = a.size(), dim = a.size(), vocabulary = a.size();
  const Precision precision = static_cast<Precision>(a.size());

  const int64_t width = smaller(VOCABULARY, vocabulary);
  float* logits = scratch<float>(LOGITS, smaller(TOKENS, tokens) * width);
  State* states = scratch<State>(STATES, tokens);
  for (int64_t t = 0; t < tokens; t++) states[t] = {-INFINITE, __builtin_nanf(""), 0};

  for (int64_t v = 0; v < vocabulary; v += VOCABULARY) {
    const int64_t columns = smaller(VOCABULARY, vocabulary - v);
    const float* rows = weightRows(w, v, columns, dim);
    for (int64_t t = 0; t < tokens; t += TOKENS) {
      const int64_t count = smaller(TOKENS, tokens - t);
      gemm(count, columns, dim, plain(x + t * dim, dim), transpose(plain(rows, dim)), logits, width, Into::set, precision);
      eachRows(count, [&](int64_t first, int64_t end) {
        for (int64_t r = first; r < end; r++) {
          State& state = states[t + r];
          const int64_t target = targets[t + r] - v;
          if (target >= 0 && target < columns) state.target = logits[r * width + target];
          addLogits(state, logits + r * width, columns);
        }
      });
    }
  }
  for (int64_t t = 0; t < tokens; t++) {
    const State& state = states[t];
    // NaN where the largest logit is infinite.
    const double logSum = static_cast<double>(state.top - state.top) + state.top + logarithm(state.sum);
    logSums[t] = static_cast<float>(logSum);
    loss[t] = targets[t] == -1 ? 0 : static_cast<float>(logSum - state.target);
  }
}

void crossEntropyBackward(Arguments a) {
  using namespace losses;
  const float* x = a.floats();
  const WeightView w = a.weight();
  const int32_t* targets = a.integers();
  a.floats();
  const float *logSums = a.floats(), *dLoss = a.floats();
  float *dx = a.floats(), *dw = a.floats();
  a.floats();
  const int64_t tokens = a.size(), dim = a.size(), vocabulary = a.size();
  const Precision precision = static_cast<Precision>(a.size());

  // Tokens without a target take no part at all: multiplied by 0, a NaN of theirs would still reach dw.
  int32_t* valid = scratch<int32_t>(VALID, tokens);
  int64_t number = 0;
  for (int64_t t = 0; t < tokens; t++)
    if (targets[t] >= 0 && targets[t] < vocabulary) valid[number++] = static_cast<int32_t>(t);
  const bool all = number == tokens;
  if (dx && !all)
    for (int64_t i = 0; i < tokens * dim; i++) dx[i] = 0;
  if (dw && number == 0)
    for (int64_t i = 0; i < vocabulary * dim; i++) dw[i] = 0;

  const int64_t width = smaller(VOCABULARY, vocabulary), height = smaller(TOKENS, number);
  float* logits = scratch<float>(LOGITS, height * width);
  float* xRows = all ? nullptr : scratch<float>(X, height * dim);
  float* dxRows = all || !dx ? nullptr : scratch<float>(DX, height * dim);

  for (int64_t t = 0; t < number; t += TOKENS) {
    const int64_t count = smaller(TOKENS, number - t);
    if (!all)
      eachRows(count, [&](int64_t first, int64_t end) {
        for (int64_t r = first; r < end; r++)
          for (int64_t i = 0; i < dim; i++) xRows[r * dim + i] = x[valid[t + r] * dim + i];
      });
    const float* xs = all ? x + t * dim : xRows;
    float* dxs = all && dx ? dx + t * dim : dxRows;

    for (int64_t v = 0; v < vocabulary; v += VOCABULARY) {
      const int64_t columns = smaller(VOCABULARY, vocabulary - v);
      const float* rows = weightRows(w, v, columns, dim);
      gemm(count, columns, dim, plain(xs, dim), transpose(plain(rows, dim)), logits, width, Into::set, precision);
      eachRows(count, [&](int64_t first, int64_t end) {
        for (int64_t r = first; r < end; r++) {
          const int64_t token = valid[t + r];
          differentiate(logits + r * width, columns, logSums[token], dLoss[token], targets[token] - v);
        }
      });
      if (dxs) gemm(count, dim, columns, plain(logits, width), plain(rows, dim), dxs, dim, v == 0 ? Into::set : Into::add, precision);
      if (dw) gemm(columns, dim, count, transpose(plain(logits, width)), plain(xs, dim), dw + v * dim, dim, t == 0 ? Into::set : Into::add, precision);
    }
    if (!all && dx)
      eachRows(count, [&](int64_t first, int64_t end) {
        for (int64_t r = first; r < end; r++)
          for (int64_t i = 0; i < dim; i++) dx[valid[t + r] * dim + i] = dxRows[r * dim + i];
      });
  }
}

}  // namespace lowbit::LOWBIT_BODY
