// y = x·Wᵀ with quantized rows of x and panels of W:
//
//   y = Σ_units s·(scale·I1 + offset·I2),  I1 = Σ sub·level·q,  I2 = Σ subOffset·q
//
// The whole numbers are exact, and the floats of an element are always the same
// in the same order: few rows, which stream the panels through, and many rows,
// which take a strip of W out of its bits once, give the same bits.
#pragma once
#include "abi.h"
#include "panels.h"
#include "quantize.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace product8 {

// Bytes of panels of a task of one row of x, and tasks that there should be at least.
constexpr int64_t TASK_BYTES = 150 * 1024;
constexpr int64_t TASKS = 8;
// How far ahead of the products panels are fetched.
constexpr int64_t AHEAD = 2048;

template <int J> struct Index {
  static constexpr int value = J;
};

template <int FROM, int TO, typename F> LOWBIT_INLINE void each(const F& f) {
  if constexpr (FROM < TO) {
    f(Index<FROM>{});
    each<FROM + 1, TO>(f);
  }
}

template <bool EIGHT> LOWBIT_INLINE i32v dot(i32v sum, codes8v a, quad x) {
  if constexpr (EIGHT) return dot8(sum, a, x);
  else return dot7(sum, a, x);
}

// Σ over so many pairs of groups of two bytes times two sums of activations; strides in bytes and in numbers.
LOWBIT_INLINE i32v pairSums(const uint8_t* bytes, int64_t byteStride, const int16_t* sums, int64_t sumStride, int64_t pairs) {
  i32v sum = splatInt(0);
  for (int64_t g = 0; g < pairs; g++) sum = dotPairs(sum, bytes + g * byteStride, sums + g * sumStride);
  return sum;
}

// One unit's share of a sum: sum + s·(scale·I1 + offset·I2).
template <bool OFFSETS> LOWBIT_INLINE f32v step(f32v sum, i32v one, f32v scale, f32v two, f32v offset, float s) {
  f32v value = floats(one) * scale;
  if constexpr (OFFSETS) value = fma(two, offset, value);
  return fma(value, splat(s), sum);
}

// LANES rows of a panel, from vector v on, for one row of x.
template <typename Kind> inline f32v stream(const uint8_t* panel, const Panels& p, const Quantized& x, int v, const LevelTable& table) {
  constexpr bool GROUPS = Kind::GROUP != 0;
  constexpr int GROUP = GROUPS ? Kind::GROUP : CHUNK;
  // So many sums at a time that none waits for its last product.
  constexpr int WAYS = 4;
  f32v sum = splat(0.0f);
  const int8_t* q = x.codes;
  const int32_t* starts = x.starts;
  for (int64_t u = 0; u < p.units; u++) {
    const int64_t n = p.weights(u);
    const uint8_t* chunk = panel + Kind::headBytes(n);
    const uint8_t* subs = panel + Kind::SCALE_BYTES * (Kind::OFFSETS ? 2 : 1);
    i32v ones[WAYS] = {splatInt(GROUPS ? 0 : *starts++), splatInt(0), splatInt(0), splatInt(0)};
    i32v total = splatInt(0);
    for (int64_t at = 0; at < n; at += CHUNK, chunk += Kind::CODE_BYTES, q += CHUNK) {
      for (int line = 0; line < Kind::CODE_BYTES; line += 64) prefetch(chunk + AHEAD + line);
      each<0, QUADS>([&](auto j) LOWBIT_INLINED {
        constexpr int J = decltype(j)::value;
        if constexpr (GROUPS && J * 4 % GROUP == 0) {
          ones[0] = splatInt(*starts++);
          ones[1] = ones[2] = ones[3] = splatInt(0);
        }
        ones[J % WAYS] = dot<Kind::EIGHT>(ones[J % WAYS], quadCodes<Kind, J>(chunk, v, table), loadQuad(q + J * 4));
        if constexpr (GROUPS && (J * 4 + 4) % GROUP == 0) {
          total = total + (ones[0] + ones[1] + (ones[2] + ones[3])) * signedBytes(reinterpret_cast<const int8_t*>(subs) + v * LANES);
          subs += PANEL;
        }
      });
    }
    if constexpr (!GROUPS) total = ones[0] + ones[1] + (ones[2] + ones[3]);
    f32v two = splat(0.0f), offset = two;
    if constexpr (Kind::OFFSETS) {
      offset = scalesAt<Kind>(panel + Kind::SCALE_BYTES, v);
      if constexpr (GROUPS) two = floats(pairSums(subs + v * 2 * LANES, 2 * PANEL, x.pairs + u * (n / GROUP), 2, n / (2 * GROUP)));
      else two = splat(x.sums[u]);
    }
    sum = step<Kind::OFFSETS>(sum, total, scalesAt<Kind>(panel, v), two, offset, x.scales[u]);
    panel = chunk;
  }
  return sum;
}

template <typename Kind> inline void oneRow(const Panels& p, const Quantized& x, const LevelTable& table, float* y) {
  const int64_t panels = p.count(), most = TASK_BYTES / (p.panelBytes + 1) + 1, fair = (panels + TASKS - 1) / TASKS;
  const int64_t task = most < fair ? most : fair;
  parallel((panels + task - 1) / task, [&, task, panels](int64_t index) {
    for (int64_t panel = index * task; panel < panels && panel < (index + 1) * task; panel++)
      for (int v = 0; v < PANEL_VECTORS; v++) {
        const f32v sum = stream<Kind>(p.bytes + panel * p.panelBytes, p, x, v, table);
        const int64_t row = panel * PANEL + v * LANES, left = p.rows - row;
        if (left >= LANES) store(y + row, sum);
        else if (left > 0) store(y + row, sum, static_cast<int>(left));
      }
  });
}

// What a product needs to know of a format once its codes are bytes.
template <bool EIGHT_, int GROUP_, bool OFFSETS_> struct TileKind {
  static constexpr bool EIGHT = EIGHT_;
  static constexpr int GROUP = GROUP_;
  static constexpr bool OFFSETS = OFFSETS_;
};

// The tile of y that is computed at a time: some rows of x by VECTORS vectors of rows of W. Up to FEW rows of x take
// small tiles.
constexpr int FEW = 8;
#if defined(LOWBIT_AVX512)
template <typename Kind> using TileOf = TileKind<false, Kind::GROUP, Kind::OFFSETS>;  // one product does for all bytes
constexpr int VECTORS = 2;
constexpr int SMALL_TILE = 4;
template <typename Kind> constexpr int largeTile = Kind::GROUP ? 6 : 12;
#else
template <typename Kind> using TileOf = TileKind<Kind::EIGHT, Kind::GROUP, Kind::OFFSETS>;
#if defined(LOWBIT_AVX2)
constexpr int VECTORS = 2;
constexpr int SMALL_TILE = 4;
template <typename Kind> constexpr int largeTile = 4;
#else
constexpr int VECTORS = 4;
constexpr int SMALL_TILE = 2;
template <typename Kind> constexpr int largeTile = 2;
#endif
#endif
constexpr int STRIP = VECTORS * LANES;  // rows of W: one panel, or two

// A strip of W out of its bits.
struct Strip {
  uint8_t* codes;    // quad of k, row, 4
  float* scales;     // unit, row
  float* offsets;    // unit, row
  int8_t* subs;      // group, row
  uint8_t* pairs;    // two groups, row, 2
};

template <typename Kind> inline int64_t groupsOf(const Panels& p) { return Kind::GROUP ? p.units * (p.unit / (Kind::GROUP ? Kind::GROUP : 1)) : 0; }

template <typename Kind> inline int64_t stripBytes(const Panels& p) {
  return STRIP * (roundUp(p.cols, CHUNK) + 8 * p.units + 3 * (groupsOf<Kind>(p) + 1));
}

template <typename Kind> inline Strip stripAt(const Panels& p, uint8_t* memory) {
  Strip s = {};
  s.codes = memory;
  s.scales = reinterpret_cast<float*>(memory += STRIP * roundUp(p.cols, CHUNK));
  s.offsets = reinterpret_cast<float*>(memory += STRIP * 4 * p.units);
  s.subs = reinterpret_cast<int8_t*>(memory += STRIP * 4 * p.units);
  s.pairs = memory + STRIP * groupsOf<Kind>(p);
  return s;
}

// Panel `panel` becomes rows first … first+15 of a strip.
template <typename Kind> inline void unpack(const Panels& p, int64_t panel, int first, const LevelTable& table, const Strip& s) {
  const uint8_t* at = p.bytes + panel * p.panelBytes;
  int64_t quadAt = 0, group = 0;
  for (int64_t u = 0; u < p.units; u++) {
    const int64_t n = p.weights(u);
    for (int v = 0; v < PANEL_VECTORS; v++) {
      store(s.scales + u * STRIP + first + v * LANES, scalesAt<Kind>(at, v));
      if constexpr (Kind::OFFSETS) store(s.offsets + u * STRIP + first + v * LANES, scalesAt<Kind>(at + Kind::SCALE_BYTES, v));
    }
    at += Kind::SCALE_BYTES * (Kind::OFFSETS ? 2 : 1);
    if constexpr (Kind::GROUP != 0) {
      const int64_t groups = n / (Kind::GROUP ? Kind::GROUP : 1);
      for (int64_t g = 0; g < groups; g++, at += PANEL) __builtin_memcpy(s.subs + (group + g) * STRIP + first, at, PANEL);
      if constexpr (Kind::OFFSETS)
        for (int64_t g = 0; g < groups; g += 2, at += 2 * PANEL) __builtin_memcpy(s.pairs + ((group + g) / 2 * STRIP + first) * 2, at, 2 * PANEL);
      group += groups;
    }
    for (int64_t k = 0; k < n; k += CHUNK, at += Kind::CODE_BYTES, quadAt += QUADS)
      for (int v = 0; v < PANEL_VECTORS; v++)
        each<0, QUADS>([&](auto j) LOWBIT_INLINED {
          storeCodes(s.codes + ((quadAt + j.value) * STRIP + first + v * LANES) * 4, quadCodes<Kind, j.value>(at, v, table));
        });
  }
}

// Rows of tile t of x, T of them, times a strip.
template <typename Kind, int T>
inline void tile(const Strip& s, const Panels& p, const Quantized& x, int64_t t, float* y, int rows, int columns) {
  constexpr bool GROUPS = Kind::GROUP != 0;
  constexpr int GROUP = GROUPS ? Kind::GROUP : 1;
  alignas(64) float sums[T][STRIP] = {};
  const uint8_t* w = s.codes;
  const int8_t* q = x.codes + t * x.quads * 4 * T;
  const int32_t* starts = x.starts + t * x.groups * T;
  const int8_t* subs = s.subs;
  for (int64_t u = 0; u < p.units; u++) {
    const int64_t n = p.weights(u);
    i32v ones[T][VECTORS], totals[GROUPS ? T : 1][VECTORS];
    if constexpr (GROUPS)
#pragma GCC unroll 12
      for (int r = 0; r < T; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) totals[r][v] = splatInt(0);
    const int64_t groups = GROUPS ? n / GROUP : 1, quads = GROUPS ? GROUP / 4 : roundUp(n, CHUNK) / 4;
    for (int64_t g = 0; g < groups; g++) {
#pragma GCC unroll 12
      for (int r = 0; r < T; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) ones[r][v] = splatInt(starts[r]);
      starts += T;
#if defined(__clang__)
#pragma clang loop unroll(disable)
#endif
      for (int64_t k = 0; k < quads; k++) {
        codes8v codes[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) codes[v] = loadCodes(w + v * 4 * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < T; r++) {
          const quad four = loadQuad(q + r * 4);
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; v++) ones[r][v] = dot<Kind::EIGHT>(ones[r][v], codes[v], four);
        }
        w += 4 * STRIP;
        q += 4 * T;
      }
      if constexpr (GROUPS) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          const i32v sub = signedBytes(subs + v * LANES);
#pragma GCC unroll 12
          for (int r = 0; r < T; r++) totals[r][v] = totals[r][v] + ones[r][v] * sub;
        }
        subs += STRIP;
      }
    }
    const int64_t line = (t * x.units + u) * T;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      const f32v scale = load(s.scales + u * STRIP + v * LANES);
      const f32v offset = Kind::OFFSETS ? load(s.offsets + u * STRIP + v * LANES) : splat(0.0f);
#pragma GCC unroll 12
      for (int r = 0; r < T; r++) {
        f32v two = splat(0.0f);
        if constexpr (Kind::OFFSETS && !GROUPS) two = splat(x.sums[line + r]);
        if constexpr (Kind::OFFSETS && GROUPS) {
          const int64_t pairs = n / (2 * GROUP);
          two = floats(pairSums(s.pairs + (u * pairs * STRIP + v * LANES) * 2, STRIP * 2, x.pairs + ((t * x.groups / 2 + u * pairs) * T + r) * 2, T * 2, pairs));
        }
        float* to = sums[r] + v * LANES;
        store(to, step<Kind::OFFSETS>(load(to), GROUPS ? totals[GROUPS ? r : 0][v] : ones[r][v], scale, two, offset, x.scales[line + r]));
      }
    }
  }
  for (int r = 0; r < rows; r++, y += p.rows)
    for (int c = 0; c < columns; c += LANES) {
      if (columns - c >= LANES) store(y + c, load(sums[r] + c));
      else store(y + c, load(sums[r] + c), columns - c);
    }
}

template <typename Kind, int T> inline void manyRows(const Panels& p, const Quantized& x, const LevelTable& table, float* y) {
  const int64_t strips = (p.rows + STRIP - 1) / STRIP, bytes = roundUp(stripBytes<Kind>(p), 64);
  uint8_t* memory = static_cast<uint8_t*>(lowbit_scratch(7, bytes * lowbit_threads()));
  // A task is a strip with all rows of x, or with some of them where there are few strips.
  const int64_t cuts = strips >= 4 * TASKS ? 1 : (4 * TASKS + strips - 1) / strips;
  const int64_t least = (96 + T - 1) / T, share = (x.tiles + cuts - 1) / cuts, tiles = share < least ? least : share;
  const int64_t parts = (x.tiles + tiles - 1) / tiles;
  parallel(strips * parts, [&, memory, bytes, tiles, parts](int64_t task) {
    const int64_t strip = task / parts, from = task % parts * tiles, to = from + tiles < x.tiles ? from + tiles : x.tiles;
    const Strip s = stripAt<Kind>(p, memory + lowbit_thread() * bytes);
    const int64_t row = strip * STRIP;
    for (int first = 0; first < STRIP && row + first < p.rows; first += PANEL) unpack<Kind>(p, (row + first) / PANEL, first, table, s);
    const int columns = static_cast<int>(p.rows - row < STRIP ? p.rows - row : STRIP);
    for (int64_t t = from; t < to; t++) {
      const int rows = static_cast<int>(x.rows - t * T < T ? x.rows - t * T : T);
      tile<TileOf<Kind>, T>(s, p, x, t, y + t * T * p.rows + row, rows, columns);
    }
  });
}

template <typename Kind> inline void linear(const float* x, const Packed& w, float* y, int64_t rows, int middle, const LevelTable& table) {
  const Panels p = panelsOf<Kind>(w);
  constexpr int T = largeTile<Kind>;
  if (rows == 1) oneRow<Kind>(p, quantize<Kind>(x, rows, p, middle, 1), table, y);
  else if (rows <= FEW) manyRows<Kind, SMALL_TILE>(p, quantize<Kind>(x, rows, p, middle, SMALL_TILE), table, y);
  else manyRows<Kind, T>(p, quantize<Kind>(x, rows, p, middle, T), table, y);
}

}  // namespace product8

// y (rows, out) = x (rows, in)·Wᵀ for a matrix that was arranged.
inline void linearInt8(const float* x, const Packed& w, float* y, int64_t rows) {
  if (rows == 0) return;
  withFormat(w, [=, &w](auto format) {
    using F = decltype(format);
    if constexpr (isCoded<F>) product8::linear<KindOf<F>>(x, w, y, rows, middleOf<F>(), tableOf<F>());
  });
}

}  // namespace lowbit::LOWBIT_BODY
