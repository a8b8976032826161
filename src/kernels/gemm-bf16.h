// The products of gemm.h with operands rounded to BF16 and sums in float32,
// where the processor has AVX-512 BF16; elsewhere they are those of gemm.h.
//
// The body is compiled for processors without these instructions: only the
// functions marked LOWBIT_BF16 have them, and bf16Here() asks the processor.
//
// Operands are rounded while they are packed, and packed in pairs along k, as
// vdpbf16ps multiplies them. Panels of B are packed by all threads together,
// and so are those of a transposed A; of a plain A each task packs its own
// rows. One element of C is always the same sum in the same order: over blocks
// of DEPTH along k, each summed from its first pair to its last and then added
// to the blocks before it. Neither threads nor neighbours nor the place in a
// tile change it.
//
// Uses scratch slots 6 and 7.
#pragma once
#include "gemm.h"

#if defined(LOWBIT_AVX512) && (defined(__clang__) ? __clang_major__ >= 9 : __GNUC__ >= 11)
#define LOWBIT_BF16 __attribute__((target("avx512bf16")))
#endif

namespace lowbit::LOWBIT_BODY {

// What a product of float32 matrices may be made with; the numbers are those of `precision` in linear.ts.
enum class Precision { float32, bf16 };

#if defined(LOWBIT_BF16)

inline bool bf16Here() { return __builtin_cpu_supports("avx512bf16"); }

namespace bf16 {

using product::panels;
using product::smaller;

// Elements of k in a block, and pairs of them: what one row of a panel holds.
constexpr int64_t DEPTH = 256, PAIRS = DEPTH / 2;
// Rows of C of one task at most, fewer where that would leave less than TASKS tasks. All tiles' heights divide it.
constexpr int64_t GROUP = 48, TASKS = 16;
// What is packed at a time.
constexpr int64_t MOST_ROWS = 2016, MOST_COLUMNS = 1536, MOST_DEPTH = 4 * DEPTH;

// Two BF16 numbers in each lane: those of `low`, and above them those of `high`.
LOWBIT_BF16 LOWBIT_INLINE __m512i paired(f32v low, f32v high) {
  alignas(64) static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(order), (__m512i)_mm512_cvtne2ps_pbh(high.v, low.v));
}

// The first n elements of a vector; all where n is larger, none where it is not positive.
LOWBIT_INLINE f32v some(const float* p, int64_t n) {
  return n >= LANES ? load(p) : n > 0 ? load(p, static_cast<int>(n)) : splat(0.0f);
}

// A row of `depth` floats as pairs, zeros up to the next vector.
LOWBIT_BF16 inline void packRow(const float* from, int64_t depth, uint32_t* to) {
  int64_t i = 0;
  for (; i + 2 * LANES <= depth; i += 2 * LANES)
    _mm512_storeu_si512(to + i / 2, (__m512i)_mm512_cvtne2ps_pbh(load(from + i + LANES).v, load(from + i).v));
  if (i < depth)
    _mm512_storeu_si512(to + i / 2, (__m512i)_mm512_cvtne2ps_pbh(some(from + i + LANES, depth - i - LANES).v, some(from + i, depth - i).v));
}

// Rows along k, one after another in the panel: PAIRS apart.
inline void packRows(const float* from, int64_t stride, int64_t rows, int64_t depth, uint32_t* panel) {
  for (int64_t r = 0; r < rows; r++) packRow(from + r * stride, depth, panel + r * PAIRS);
}

// Rows across k: pairs of rows as they are, `width` lanes (whole vectors) of them. Lanes from `columns` on are zeros.
LOWBIT_BF16 inline void packAcross(const float* from, int64_t stride, int64_t columns, int64_t width, int64_t depth, uint32_t* panel) {
  for (int64_t k = 0; k < depth; k += 2, from += 2 * stride, panel += width)
    for (int64_t c = 0; c < width; c += LANES) {
      const f32v low = some(from + c, columns - c);
      const f32v high = k + 1 < depth ? some(from + stride + c, columns - c) : splat(0.0f);
      _mm512_storeu_si512(panel + c, paired(low, high));
    }
}

// Rows along k that become lanes: of a panel of B. Lanes that it does not have repeat the last.
inline void packTurned(const float* from, int64_t stride, int64_t columns, int64_t width, int64_t depth, uint32_t* panel) {
  alignas(64) uint32_t buffer[LANES * PAIRS];
  const int64_t pairs = (depth + 1) / 2;
  for (int64_t c = 0; c < width; c += LANES) {
    for (int64_t r = 0; r < LANES; r++) packRow(from + smaller(c + r, columns - 1) * stride, depth, buffer + r * PAIRS);
    for (int64_t i = 0; i < pairs; i += 4)
      product::transposeFour(reinterpret_cast<const float*>(buffer) + i, PAIRS, reinterpret_cast<float*>(panel) + i * width + c, width);
  }
}

// C (rows, columns) from ROWS rows of A and one panel of B of WIDE vectors. ALONG: rows of A are PAIRS apart, else
// pairs of rows are GROUP apart.
template <int ROWS, int WIDE, bool ALONG>
LOWBIT_BF16 void tile(const uint32_t* a, const uint32_t* b, int64_t pairs, float* c, int64_t stride, int rows, int columns, Into into) {
  constexpr int64_t ROW = ALONG ? PAIRS : 1, STEP = ALONG ? 1 : GROUP;
  __m512 sums[ROWS][WIDE];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int v = 0; v < WIDE; v++) sums[r][v] = _mm512_setzero_ps();
#if defined(__clang__)
#pragma clang loop unroll(disable)
#endif
  for (int64_t k = 0; k < pairs; k++) {
    __m512bh row[WIDE];
#pragma GCC unroll 4
    for (int v = 0; v < WIDE; v++) row[v] = (__m512bh)_mm512_loadu_si512(b + v * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r * ROW]));
#pragma GCC unroll 4
      for (int v = 0; v < WIDE; v++) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], x, row[v]);
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
      const int64_t n = columns - v * LANES;
      f32v sum = {sums[r][v]};
      if (into != Into::set) sum = into == Into::add ? some(at, n) + sum : some(at, n) - sum;
      if (n >= LANES) store(at, sum);
      else store(at, sum, static_cast<int>(n));
    }
  }
}

// The part of C for which both operands fit into scratch; `run` as in gemm.h.
template <int ROWS, int WIDE, typename Run>
inline void part(const Run& run, int64_t m, int64_t n, int64_t k, Operand a, Operand b, bool keepB, float* c, int64_t stride, Into into,
                 uint32_t* forA, uint32_t* forB) {
  constexpr int64_t COLUMNS = WIDE * LANES, PANEL = GROUP * PAIRS;
  const int64_t blocks = panels(k, DEPTH), aPanels = a.transposed ? panels(m, GROUP) : 0, bPanels = panels(n, COLUMNS);
  const auto depthOf = [=](int64_t block) { return smaller(DEPTH, k - block * DEPTH); };
  const auto columnsOf = [=](int64_t q) { return smaller(COLUMNS, n - q * COLUMNS); };
  // Of a panel of B; only one of two vectors may be half empty.
  const auto widthOf = [=](int64_t q) { return WIDE == 2 && columnsOf(q) <= LANES ? int64_t{LANES} : COLUMNS; };
  const auto aPanel = [=](int64_t block, int64_t p) { return forA + (block * aPanels + p) * PANEL; };
  const auto bPanel = [=](int64_t block, int64_t q) { return forB + (block * bPanels + q) * COLUMNS * PAIRS; };

  const int64_t aTasks = aPanels * blocks, bTasks = keepB ? 0 : bPanels * blocks;
  run(aTasks + bTasks, [=](int64_t task) {
    if (task < aTasks) {
      const int64_t block = task / aPanels, p = task % aPanels, rows = smaller(GROUP, m - p * GROUP);
      packAcross(a.floats + block * DEPTH * a.stride + p * GROUP, a.stride, rows, GROUP, depthOf(block), aPanel(block, p));
    } else {
      const int64_t block = (task - aTasks) / bPanels, q = (task - aTasks) % bPanels, from = q * COLUMNS;
      if (b.transposed) packTurned(b.floats + from * b.stride + block * DEPTH, b.stride, columnsOf(q), widthOf(q), depthOf(block), bPanel(block, q));
      else packAcross(b.floats + block * DEPTH * b.stride + from, b.stride, columnsOf(q), widthOf(q), depthOf(block), bPanel(block, q));
    }
  });

  const int64_t tiles = panels(m, ROWS), taskTiles = smaller(GROUP / ROWS, panels(tiles, TASKS));
  run(panels(tiles, taskTiles), [=](int64_t task) {
    const int64_t first = task * taskTiles, last = smaller(first + taskTiles, tiles);
    uint32_t* own = forA + lowbit_thread() * PANEL;
    for (int64_t block = 0; block < blocks; block++) {
      const Into how = into == Into::set && block > 0 ? Into::add : into;
      const int64_t pairs = (depthOf(block) + 1) / 2;
      if (!a.transposed) packRows(a.floats + first * ROWS * a.stride + block * DEPTH, a.stride, smaller(last * ROWS, m) - first * ROWS, depthOf(block), own);
      for (int64_t q = 0; q < bPanels; q++) {
        const int columns = static_cast<int>(columnsOf(q));
        const bool narrow = widthOf(q) < COLUMNS;
        for (int64_t p = first; p < last; p++) {
          const int64_t row = p * ROWS;
          const int rows = static_cast<int>(smaller(ROWS, m - row));
          float* at = c + row * stride + q * COLUMNS;
          if (a.transposed) {
            const uint32_t* lanes = aPanel(block, row / GROUP) + row % GROUP;
            if (narrow) tile<ROWS, 1, false>(lanes, bPanel(block, q), pairs, at, stride, rows, columns, how);
            else tile<ROWS, WIDE, false>(lanes, bPanel(block, q), pairs, at, stride, rows, columns, how);
          } else {
            const uint32_t* along = own + (p - first) * ROWS * PAIRS;
            if (narrow) tile<ROWS, 1, true>(along, bPanel(block, q), pairs, at, stride, rows, columns, how);
            else tile<ROWS, WIDE, true>(along, bPanel(block, q), pairs, at, stride, rows, columns, how);
          }
        }
      }
    }
  });
}

// The operand from its element (row, column) on.
inline Operand at(Operand x, int64_t row, int64_t column) {
  const int64_t place = x.transposed ? column * x.stride + row : row * x.stride + column;
  return {x.floats + place, x.stride, nullptr, x.transposed};
}

template <int ROWS, int WIDE>
inline void whole(int64_t m, int64_t n, int64_t k, Operand a, Operand b, float* c, int64_t stride, Into into) {
  const int64_t depth = panels(smaller(k, MOST_DEPTH), DEPTH) * PAIRS;
  const int64_t aRows = a.transposed ? panels(smaller(m, MOST_ROWS), GROUP) * GROUP * depth : lowbit_threads() * GROUP * PAIRS;
  const int64_t bColumns = panels(smaller(n, MOST_COLUMNS), WIDE * LANES) * WIDE * LANES;
  uint32_t* forA = static_cast<uint32_t*>(lowbit_scratch(6, aRows * 4));
  uint32_t* forB = static_cast<uint32_t*>(lowbit_scratch(7, bColumns * depth * 4));
  const bool small = m * n * k <= product::SMALL;
  const auto run = [=](int64_t tasks, const auto& f) {
    if (small) product::oneByOne(tasks, f);
    else parallel(tasks, f);
  };
  for (int64_t column = 0; column < n; column += MOST_COLUMNS)
    for (int64_t from = 0; from < k; from += MOST_DEPTH)
      for (int64_t row = 0; row < m; row += MOST_ROWS)
        part<ROWS, WIDE>(run, smaller(MOST_ROWS, m - row), smaller(MOST_COLUMNS, n - column), smaller(MOST_DEPTH, k - from), at(a, row, from),
                         at(b, from, column), row > 0, c + row * stride + column, stride, into == Into::set && from > 0 ? Into::add : into,
                         forA, forB);
}

}  // namespace bf16

#else

inline bool bf16Here() { return false; }

#endif

// gemm() of gemm.h; with Precision::bf16 both operands, where they are plain floats, may be rounded to BF16.
inline void gemm(int64_t m, int64_t n, int64_t k, Operand a, Operand b, float* c, int64_t stride, Into into, Precision precision) {
#if defined(LOWBIT_BF16)
  if (precision == Precision::bf16 && a.floats && b.floats && k > 0 && bf16Here()) {
    const int64_t vectors = (n + LANES - 1) / LANES;
    // Of the tiles that fill the registers, the widest that leaves none of them empty.
    if (vectors % 4 == 0) bf16::whole<6, 4>(m, n, k, a, b, c, stride, into);
    else if (vectors % 3 == 0) bf16::whole<8, 3>(m, n, k, a, b, c, stride, into);
    else bf16::whole<12, 2>(m, n, k, a, b, c, stride, into);
    return;
  }
#endif
  static_cast<void>(precision);
  gemm(m, n, k, a, b, c, stride, into);
}

}  // namespace lowbit::LOWBIT_BODY
