// y = x·Wᵀ and its gradients: see linear.ts. Many rows of x are a product of
// packed panels (gemm.h), which decodes a packed weight once. A few rows, as in
// generation, read the weight where it lies: each piece of a row of W is
// decoded into the first-level cache and used for all rows of x; what a row of x
// gets does not depend on the others. Weights for int8 activations: int-linear.h;
// few rows of x and codes with a book: book-linear.h.
#include "book-linear.h"
#include "gemm-bf16.h"
#include "int-linear.h"

namespace lowbit::LOWBIT_BODY {

// Up to this many rows of x are taken without packing.
constexpr int FEW_ROWS = 8;
// Weights decoded at a time, and weights of one task.
constexpr int64_t LINEAR_PIECE = 1024;
constexpr int64_t LINEAR_TASK = 32768;

// Rows of x at a time whose partial sums fit into registers.
constexpr int DOT_ROWS = LANES == 16 ? 4 : 2;

// sums[r] += x[r] · w for ROWS rows of x, `stride` apart: four partial sums in vectors for each row.
template <int ROWS>
inline void dots(const float* x, int64_t stride, const float* w, int64_t n, float* sums) {
  constexpr int WAYS = 4;
  f32v parts[ROWS][WAYS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int j = 0; j < WAYS; j++) parts[r][j] = splat(0.0f);
  int64_t i = 0;
  for (; i + WAYS * LANES <= n; i += WAYS * LANES) {
#pragma GCC unroll 4
    for (int j = 0; j < WAYS; j++) {
      const f32v weights = load(w + i + j * LANES);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) parts[r][j] = fma(load(x + r * stride + i + j * LANES), weights, parts[r][j]);
    }
  }
  for (; i + LANES <= n; i += LANES)
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) parts[r][0] = fma(load(x + r * stride + i), load(w + i), parts[r][0]);
  if (i < n) {
    const int rest = static_cast<int>(n - i);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) parts[r][1] = fma(load(x + r * stride + i, rest), load(w + i, rest), parts[r][1]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
    sums[r] += sum(parts[r][0] + parts[r][1] + (parts[r][2] + parts[r][3]));
  }
}

inline void dotsOf(int rows, const float* x, int64_t stride, const float* w, int64_t n, float* sums) {
  for (; rows >= DOT_ROWS; rows -= DOT_ROWS, x += DOT_ROWS * stride, sums += DOT_ROWS) dots<DOT_ROWS>(x, stride, w, n, sums);
  if (rows == 3) dots<3>(x, stride, w, n, sums);
  if (rows == 2) dots<2>(x, stride, w, n, sums);
  if (rows == 1) dots<1>(x, stride, w, n, sums);
}

// A task is some rows of W: by size, never by the number of threads.
inline void linearFewRows(const float* x, Operand w, float* y, int rows, int64_t out, int64_t in) {
  const int64_t task = in < LINEAR_TASK ? LINEAR_TASK / (in ? in : 1) : 1;
  parallel((out + task - 1) / task, [=](int64_t index) {
    alignas(64) float piece[LINEAR_PIECE];
    for (int64_t o = index * task; o < out && o < (index + 1) * task; o++) {
      float sums[FEW_ROWS] = {};
      for (int64_t i = 0; i < in; i += LINEAR_PIECE) {
        const int64_t n = in - i < LINEAR_PIECE ? in - i : LINEAR_PIECE;
        dotsOf(rows, x + i, in, product::stored(w, o, i, n, piece), n, sums);
      }
      for (int r = 0; r < rows; r++) y[r * out + o] = sums[r];
    }
  });
}

void linear(Arguments a) {
  const float* x = a.floats();
  const WeightView w = a.weight();
  float* y = a.floats();
  const int64_t rows = a.size(), out = a.size(), in = a.size();
  a.size();  // the group of activations: panels know it
  const Precision precision = static_cast<Precision>(a.size());
  if (w.packed && w.packed->panels != 0 && in > 0) return linearInt8(x, *w.packed, y, rows);
  if (rows <= FEW_ROWS && w.packed && w.packed->kernel == 1) return books::linear(x, *w.packed, y, static_cast<int>(rows));
  if (rows <= FEW_ROWS) linearFewRows(x, operand(w, in), y, static_cast<int>(rows), out, in);
  else gemm(rows, out, in, plain(x, in), transpose(operand(w, in)), y, out, Into::set, precision);
}

// dx = dy·W, dW = dyᵀ·x
void linearBackward(Arguments a) {
  const float* x = a.floats();
  const WeightView w = a.weight();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  float* dw = a.floats();
  const int64_t rows = a.size(), out = a.size(), in = a.size();
  a.size();
  const Precision precision = static_cast<Precision>(a.size());
  if (dx) gemm(rows, in, out, plain(dy, out), operand(w, in), dx, in, Into::set, precision);
  if (dw) gemm(out, in, rows, transpose(plain(dy, out)), plain(x, in), dw, in, Into::set, precision);
}

}  // namespace lowbit::LOWBIT_BODY
