// Products of float32 matrices: C = A·B, C += A·B, C −= A·B, with each operand
// plain or packed, transposed or not.
//
// Both operands are first copied into panels, all threads together: packed
// weights are decoded and transposes disappear there. Then tiles of C are
// computed, ROWS × COLUMNS of them in registers at a time, by tasks that are
// cut by shape. One element of C is always the same sum in the same order:
// over blocks of DEPTH along k, each summed from its first product to its last
// and then added to the blocks before it. Neither threads nor neighbours nor
// the place in a tile change it.
//
// Uses scratch slots 6 and 7.
#pragma once
#include "abi.h"
#include "panels.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// A matrix to read: rows of floats `stride` apart, or a packed matrix; seen
// transposed where asked.
struct Operand {
  const float* floats;
  int64_t stride;
  const Packed* packed;
  bool transposed;
};

inline Operand plain(const float* floats, int64_t stride) { return {floats, stride, nullptr, false}; }
inline Operand operand(WeightView w, int64_t stride) { return {w.floats, stride, w.packed, false}; }
inline Operand transpose(Operand x) { return {x.floats, x.stride, x.packed, !x.transposed}; }

enum class Into { set, add, subtract };

namespace product {

// The tile of C that the registers hold, and the longest sum before it goes back to memory.
#if defined(LOWBIT_AVX512)
constexpr int ROWS = 8, VECTORS = 3;
#elif defined(LOWBIT_AVX2)
constexpr int ROWS = 6, VECTORS = 2;
#else
constexpr int ROWS = 4, VECTORS = 2;
#endif
constexpr int COLUMNS = VECTORS * LANES;
constexpr int64_t DEPTH = 256;

// A tile task: up to 96 rows of C, fewer where that would leave less than 16 tasks, and up to 8 panels of columns.
constexpr int64_t TASK_ROWS = 96 / ROWS;
constexpr int64_t TASK_COLUMNS = 8;
constexpr int64_t TASKS = 16;
// What is packed at a time: 8 MiB of each operand at most.
constexpr int64_t MOST_ROWS = 2048 / ROWS * ROWS, MOST_COLUMNS = 2048 / COLUMNS * COLUMNS, MOST_DEPTH = 4 * DEPTH;

// Multiplications that take less time than waking the other threads twice.
constexpr int64_t SMALL = 1 << 17;

template <typename F> inline void oneByOne(int64_t tasks, const F& f) {
  for (int64_t task = 0; task < tasks; task++) f(task);
}

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t panels(int64_t size, int64_t width) { return (size + width - 1) / width; }

// Elements from … from+n−1 of stored row r: where they are, or decoded into `buffer`.
inline const float* stored(const Operand& x, int64_t r, int64_t from, int64_t n, float* buffer) {
  if (x.floats) return x.floats + r * x.stride + from;
  decodeWeights(*x.packed, r, from, n, buffer);
  return buffer;
}

// One panel of A: rows row … row+rows−1 (at most ROWS), depth k … k+depth−1.
// Rows that run along k become ROWS rows DEPTH apart; rows that run across it,
// `depth` rows of ROWS. Rows that A does not have are zeros.
inline void packA(const Operand& a, int64_t row, int64_t rows, int64_t k, int64_t depth, float* panel) {
  float buffer[DEPTH];
  if (!a.transposed) {
    for (int64_t r = 0; r < ROWS; r++, panel += DEPTH) {
      const float* from = r < rows ? stored(a, row + r, k, depth, buffer) : nullptr;
      int64_t i = 0;
      for (; i + LANES <= depth; i += LANES) store(panel + i, from ? load(from + i) : splat(0.0f));
      for (; i < depth; i++) panel[i] = from ? from[i] : 0.0f;
    }
    return;
  }
  for (int64_t i = 0; i < depth; i++, panel += ROWS) {
    const float* from = stored(a, k + i, row, rows, buffer);
    if (rows == ROWS) {
      for (int r = 0; r < ROWS; r++) panel[r] = from[r];
    } else {
      for (int64_t r = 0; r < ROWS; r++) panel[r] = r < rows ? from[r] : 0.0f;
    }
  }
}

// Four elements of LANES rows, `stride` apart, as four vectors: out[i·outStride + r] = rows[r·stride + i].
LOWBIT_INLINE void transposeFour(const float* rows, int64_t stride, float* out, int64_t outStride) {
#if defined(LOWBIT_AVX512)
  __m512 t[4];
  for (int i = 0; i < 4; i++) {
    const float* p = rows + i * stride;
    t[i] = _mm512_castps128_ps512(_mm_loadu_ps(p));
    t[i] = _mm512_insertf32x4(t[i], _mm_loadu_ps(p + 4 * stride), 1);
    t[i] = _mm512_insertf32x4(t[i], _mm_loadu_ps(p + 8 * stride), 2);
    t[i] = _mm512_insertf32x4(t[i], _mm_loadu_ps(p + 12 * stride), 3);
  }
  const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(t[0], t[1])), b = _mm512_castps_pd(_mm512_unpacklo_ps(t[2], t[3]));
  const __m512d c = _mm512_castps_pd(_mm512_unpackhi_ps(t[0], t[1])), d = _mm512_castps_pd(_mm512_unpackhi_ps(t[2], t[3]));
  _mm512_storeu_ps(out, _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)));
  _mm512_storeu_ps(out + outStride, _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  _mm512_storeu_ps(out + 2 * outStride, _mm512_castpd_ps(_mm512_unpacklo_pd(c, d)));
  _mm512_storeu_ps(out + 3 * outStride, _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
#elif defined(LOWBIT_AVX2)
  __m256 t[4];
  for (int i = 0; i < 4; i++) {
    const float* p = rows + i * stride;
    t[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * stride), 1);
  }
  const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(t[0], t[1])), b = _mm256_castps_pd(_mm256_unpacklo_ps(t[2], t[3]));
  const __m256d c = _mm256_castps_pd(_mm256_unpackhi_ps(t[0], t[1])), d = _mm256_castps_pd(_mm256_unpackhi_ps(t[2], t[3]));
  _mm256_storeu_ps(out, _mm256_castpd_ps(_mm256_unpacklo_pd(a, b)));
  _mm256_storeu_ps(out + outStride, _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
  _mm256_storeu_ps(out + 2 * outStride, _mm256_castpd_ps(_mm256_unpacklo_pd(c, d)));
  _mm256_storeu_ps(out + 3 * outStride, _mm256_castpd_ps(_mm256_unpackhi_pd(c, d)));
#elif defined(LOWBIT_WASM)
  const v128_t r0 = wasm_v128_load(rows), r1 = wasm_v128_load(rows + stride);
  const v128_t r2 = wasm_v128_load(rows + 2 * stride), r3 = wasm_v128_load(rows + 3 * stride);
  const v128_t a = wasm_i32x4_shuffle(r0, r1, 0, 4, 1, 5), b = wasm_i32x4_shuffle(r2, r3, 0, 4, 1, 5);
  const v128_t c = wasm_i32x4_shuffle(r0, r1, 2, 6, 3, 7), d = wasm_i32x4_shuffle(r2, r3, 2, 6, 3, 7);
  wasm_v128_store(out, wasm_i64x2_shuffle(a, b, 0, 2));
  wasm_v128_store(out + outStride, wasm_i64x2_shuffle(a, b, 1, 3));
  wasm_v128_store(out + 2 * outStride, wasm_i64x2_shuffle(c, d, 0, 2));
  wasm_v128_store(out + 3 * outStride, wasm_i64x2_shuffle(c, d, 1, 3));
#else
  for (int i = 0; i < 4; i++)
    for (int r = 0; r < LANES; r++) out[i * outStride + r] = rows[r * stride + i];
#endif
}

// One panel of B: depth k … k+depth−1, columns column … column+columns−1 (at
// most COLUMNS): `depth` rows of `width` floats, a whole number of vectors.
// Columns that B does not have are zeros.
inline void packB(const Operand& b, int64_t column, int64_t columns, int64_t k, int64_t depth, float* panel) {
  const int64_t width = panels(columns, LANES) * LANES;
  if (!b.transposed) {
    float buffer[COLUMNS];
    for (int64_t i = 0; i < depth; i++, panel += width) {
      const float* from = stored(b, k + i, column, columns, buffer);
      int64_t c = 0;
      for (; c + LANES <= columns; c += LANES) store(panel + c, load(from + c));
      if (c < columns) store(panel + c, load(from + c, static_cast<int>(columns - c)));
    }
    return;
  }
  // Stored rows run along k: LANES of them at a time, four elements at a time.
  float buffer[LANES * DEPTH];
  for (int64_t c = 0; c < width; c += LANES) {
    const int64_t rows = smaller(LANES, columns - c);
    const float* from = buffer;
    int64_t stride = DEPTH;
    if (b.floats && rows == LANES) {
      from = b.floats + (column + c) * b.stride + k;
      stride = b.stride;
    } else {
      for (int64_t r = 0; r < LANES; r++) {
        float* to = buffer + r * DEPTH;
        const float* row = r < rows ? stored(b, column + c + r, k, depth, to) : nullptr;
        if (row != to)
          for (int64_t i = 0; i < depth; i++) to[i] = row ? row[i] : 0.0f;
      }
    }
    int64_t i = 0;
    for (; i + 4 <= depth; i += 4) transposeFour(from + i, stride, panel + i * width + c, width);
    for (; i < depth; i++)
      for (int r = 0; r < LANES; r++) panel[i * width + c + r] = from[r * stride + i];
  }
}

// C (rows, columns) from one panel of A and one of B. ALONG: the panel of A has
// ROWS rows DEPTH apart, else `depth` rows of ROWS.
template <int WIDE, bool ALONG>
inline void tile(const float* a, const float* b, int64_t depth, float* c, int64_t stride, int rows, int columns, Into into) {
  constexpr int64_t ROW = ALONG ? DEPTH : 1, STEP = ALONG ? 1 : ROWS;
  f32v sums[ROWS][WIDE];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int v = 0; v < WIDE; v++) sums[r][v] = splat(0.0f);
#if defined(__clang__)
#pragma clang loop unroll(disable)
#endif
  for (int64_t k = 0; k < depth; k++) {
    f32v row[WIDE];
#pragma GCC unroll 4
    for (int v = 0; v < WIDE; v++) row[v] = load(b + v * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      const f32v x = splat(a[r * ROW]);
#pragma GCC unroll 4
      for (int v = 0; v < WIDE; v++) sums[r][v] = fma(x, row[v], sums[r][v]);
    }
    a += STEP;
    b += WIDE * LANES;
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++) {
    if (r >= rows) return;
#pragma GCC unroll 4
    for (int v = 0; v < WIDE; v++) {
      float* at = c + r * stride + v * LANES;
      const int n = columns - v * LANES;
      if (n >= LANES) {
        store(at, into == Into::set ? sums[r][v] : into == Into::add ? load(at) + sums[r][v] : load(at) - sums[r][v]);
      } else {
        const f32v old = into == Into::set ? splat(0.0f) : load(at, n);
        store(at, into == Into::set ? sums[r][v] : into == Into::add ? old + sums[r][v] : old - sums[r][v], n);
      }
    }
  }
}

template <bool ALONG>
inline void anyTile(const float* a, const float* b, int64_t depth, float* c, int64_t stride, int rows, int columns, Into into) {
  const int wide = (columns + LANES - 1) / LANES;
  if (wide == VECTORS) tile<VECTORS, ALONG>(a, b, depth, c, stride, rows, columns, into);
  else if (wide == 1) tile<1, ALONG>(a, b, depth, c, stride, rows, columns, into);
  else tile<2, ALONG>(a, b, depth, c, stride, rows, columns, into);
}

// The part of C for which both operands fit into scratch. `run(tasks, f)` calls f for each task.
template <typename Run>
inline void packedPart(const Run& run, int64_t m, int64_t n, int64_t k, Operand a, int64_t row, Operand b, int64_t column, int64_t from,
                       bool keepB, float* c, int64_t stride, Into into, float* scratchA, float* scratchB) {
  const int64_t blocks = panels(k, DEPTH), aPanels = panels(m, ROWS), bPanels = panels(n, COLUMNS);
  const auto depthOf = [=](int64_t block) { return smaller(DEPTH, k - block * DEPTH); };
  const auto aPanel = [=](int64_t block, int64_t p) { return scratchA + (block * aPanels + p) * ROWS * DEPTH; };
  const auto bPanel = [=](int64_t block, int64_t p) { return scratchB + (block * bPanels + p) * COLUMNS * DEPTH; };

  // Packing: a task is eight panels of A or one of B, for one block of k.
  constexpr int64_t GROUP = 8;
  const int64_t aGroups = panels(aPanels, GROUP);
  const int64_t aTasks = aGroups * blocks, bTasks = keepB ? 0 : bPanels * blocks;
  run(aTasks + bTasks, [=](int64_t task) {
    if (task < aTasks) {
      const int64_t block = task / aGroups, first = task % aGroups * GROUP;
      for (int64_t p = first; p < smaller(first + GROUP, aPanels); p++)
        packA(a, row + p * ROWS, smaller(ROWS, m - p * ROWS), from + block * DEPTH, depthOf(block), aPanel(block, p));
    } else {
      const int64_t block = (task - aTasks) / bPanels, p = (task - aTasks) % bPanels;
      packB(b, column + p * COLUMNS, smaller(COLUMNS, n - p * COLUMNS), from + block * DEPTH, depthOf(block), bPanel(block, p));
    }
  });

  const int64_t columnTasks = panels(bPanels, TASK_COLUMNS);
  const int64_t taskRows = smaller(TASK_ROWS, panels(aPanels * columnTasks, TASKS)), rowTasks = panels(aPanels, taskRows);
  run(rowTasks * columnTasks, [=](int64_t task) {
    const int64_t firstA = task / columnTasks * taskRows, lastA = smaller(firstA + taskRows, aPanels);
    const int64_t firstB = task % columnTasks * TASK_COLUMNS, lastB = smaller(firstB + TASK_COLUMNS, bPanels);
    for (int64_t block = 0; block < blocks; block++) {
      const Into how = into == Into::set && block > 0 ? Into::add : into;
      for (int64_t q = firstB; q < lastB; q++) {
        const int columns = static_cast<int>(smaller(COLUMNS, n - q * COLUMNS));
        for (int64_t p = firstA; p < lastA; p++) {
          const int rows = static_cast<int>(smaller(ROWS, m - p * ROWS));
          float* at = c + p * ROWS * stride + q * COLUMNS;
          if (a.transposed) anyTile<false>(aPanel(block, p), bPanel(block, q), depthOf(block), at, stride, rows, columns, how);
          else anyTile<true>(aPanel(block, p), bPanel(block, q), depthOf(block), at, stride, rows, columns, how);
        }
      }
    }
  });
}

// Floats of scratch for the panels of A, and for those of B.
inline int64_t scratchA(int64_t m, int64_t k) { return panels(smaller(m, MOST_ROWS), ROWS) * ROWS * panels(smaller(k, MOST_DEPTH), DEPTH) * DEPTH; }
inline int64_t scratchB(int64_t n, int64_t k) { return panels(smaller(n, MOST_COLUMNS), COLUMNS) * COLUMNS * panels(smaller(k, MOST_DEPTH), DEPTH) * DEPTH; }

template <typename Run>
inline void whole(const Run& run, int64_t m, int64_t n, int64_t k, Operand a, Operand b, float* c, int64_t stride, Into into, float* forA, float* forB) {
  if (k == 0 && into == Into::set)
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j < n; j++) c[i * stride + j] = 0.0f;
  for (int64_t column = 0; column < n; column += MOST_COLUMNS) {
    for (int64_t from = 0; from < k; from += MOST_DEPTH) {
      for (int64_t row = 0; row < m; row += MOST_ROWS) {
        packedPart(run, smaller(MOST_ROWS, m - row), smaller(MOST_COLUMNS, n - column), smaller(MOST_DEPTH, k - from), a, row, b, column, from,
                   row > 0, c + row * stride + column, stride, into == Into::set && from > 0 ? Into::add : into, forA, forB);
      }
    }
  }
}

}  // namespace product

// C (m, n), rows `stride` apart, from A (m, k) · B (k, n), on all threads. Call it outside parallel().
inline void gemm(int64_t m, int64_t n, int64_t k, Operand a, Operand b, float* c, int64_t stride, Into into = Into::set) {
  float* forA = static_cast<float*>(lowbit_scratch(6, product::scratchA(m, k) * 4));
  float* forB = static_cast<float*>(lowbit_scratch(7, product::scratchB(n, k) * 4));
  const bool small = m * n * k <= product::SMALL;
  const auto run = [=](int64_t tasks, const auto& f) {
    if (small) product::oneByOne(tasks, f);
    else parallel(tasks, f);
  };
  product::whole(run, m, n, k, a, b, c, stride, into, forA, forB);
}

// The same on the calling thread alone, for use inside parallel(). `scratch`
// has gemmScratch(m, n, k) floats, aligned to 64 bytes, of this thread's own.
inline int64_t gemmScratch(int64_t m, int64_t n, int64_t k) { return product::scratchA(m, k) + product::scratchB(n, k); }
inline void gemmHere(int64_t m, int64_t n, int64_t k, Operand a, Operand b, float* c, int64_t stride, Into into, float* scratch) {
  const auto run = [](int64_t tasks, const auto& f) { product::oneByOne(tasks, f); };
  product::whole(run, m, n, k, a, b, c, stride, into, scratch, scratch + product::scratchA(m, k));
}

}  // namespace lowbit::LOWBIT_BODY
