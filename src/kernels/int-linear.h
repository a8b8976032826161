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
#include "plane-linear.h"
#include "quantize.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace product8 {

// Bytes of panels of a task of one row of x, and tasks that there should be at least.
constexpr int64_t TASK_BYTES = 150 * 1024;
constexpr int64_t TASKS = 8;
// How far ahead of the products panels are fetched.
constexpr int64_t AHEAD = 2048;

template <bool EIGHT> LOWBIT_INLINE i32v dot(i32v sum, codes8v a, quad x) {
  if constexpr (EIGHT) return dot8(sum, a, x);
  else return dot7(sum, a, x);
}

// The rows of a panel, for one row of x.
template <typename Kind> inline void stream(const uint8_t* panel, const Panels& p, const Quantized& x, const LevelTable& table, f32v* sums) {
  constexpr bool GROUPS = Kind::GROUP != 0;
  constexpr int GROUP = GROUPS ? Kind::GROUP : CHUNK;
  // So many sums at a time that none waits for its last product.
  constexpr int V = PANEL_VECTORS, WAYS = V == 1 ? 4 : 2;
#pragma GCC unroll 4
  for (int v = 0; v < V; v++) sums[v] = splat(0.0f);
  const int8_t* q = x.codes;
  const int32_t* starts = x.starts;
  for (int64_t u = 0; u < p.units; u++) {
    const int64_t n = p.weights(u);
    const uint8_t* chunk = panel + Kind::CODES;
    const int8_t* subs = reinterpret_cast<const int8_t*>(panel + Kind::SUBS);
    i32v ones[V][WAYS], totals[V];
    const auto begin = [&](int32_t start) LOWBIT_INLINED {
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) {
        ones[v][0] = splatInt(start);
#pragma GCC unroll 4
        for (int way = 1; way < WAYS; way++) ones[v][way] = splatInt(0);
      }
    };
    const auto all = [&](int v) LOWBIT_INLINED {
      if constexpr (WAYS == 4) return ones[v][0] + ones[v][1] + (ones[v][2] + ones[v][3]);
      else return ones[v][0] + ones[v][1];
    };
    if constexpr (GROUPS)
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) totals[v] = splatInt(0);
    else begin(*starts++);
    for (int64_t at = 0; at < n; at += CHUNK, chunk += Kind::CODE_BYTES, q += CHUNK) {
      for (int line = 0; line < Kind::CODE_BYTES; line += 64) prefetch(chunk + AHEAD + line);
      each<0, QUADS>([&](auto j) LOWBIT_INLINED {
        constexpr int J = decltype(j)::value;
        if constexpr (GROUPS && J * 4 % GROUP == 0) begin(*starts++);
        const quad four = loadQuad(q + J * 4);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) ones[v][J % WAYS] = dot<Kind::EIGHT>(ones[v][J % WAYS], quadCodes<Kind, J>(chunk, v, table), four);
        if constexpr (GROUPS && (J * 4 + 4) % GROUP == 0) {
#pragma GCC unroll 4
          for (int v = 0; v < V; v++) totals[v] = totals[v] + all(v) * signedBytes(subs + v * LANES);
          subs += PANEL;
        }
      });
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      if constexpr (!GROUPS) totals[v] = all(v);
      f32v two = splat(0.0f), offset = two;
      if constexpr (Kind::OFFSETS) {
        offset = scalesAt<Kind>(panel + Kind::SCALE_BYTES, v);
        if constexpr (GROUPS) {
          i32v pairs = splatInt(0);
          for (int g = 0; g < Kind::GROUPS; g += 2)
            pairs = dotPairs(pairs, bytePairs(panel + Kind::SUB_OFFSETS + g * PANEL + v * 2 * LANES), x.pairs + u * Kind::GROUPS + g);
          two = floats(pairs);
        } else {
          two = splat(x.sums[u]);
        }
      }
      sums[v] = step<Kind::OFFSETS>(sums[v], totals[v], scalesAt<Kind>(panel, v), two, offset, x.scales[u]);
    }
    panel = chunk;
  }
}

template <typename Kind> inline void oneRow(const Panels& p, const Quantized& x, const LevelTable& table, float* y) {
  const int64_t panels = p.count(), most = TASK_BYTES / (p.panelBytes + 1) + 1, fair = (panels + TASKS - 1) / TASKS;
  const int64_t task = most < fair ? most : fair;
  parallel((panels + task - 1) / task, [&, task, panels](int64_t index) {
    for (int64_t panel = index * task; panel < panels && panel < (index + 1) * task; panel++) {
      f32v sums[PANEL_VECTORS];
      stream<Kind>(p.bytes + panel * p.panelBytes, p, x, table, sums);
      for (int v = 0; v < PANEL_VECTORS; v++) {
        const int64_t row = panel * PANEL + v * LANES, left = p.rows - row;
        if (left >= LANES) store(y + row, sums[v]);
        else if (left > 0) store(y + row, sums[v], static_cast<int>(left));
      }
    }
  });
}

// What a product needs to know of a format once its codes are bytes. SHORT: all units are of one chunk.
template <bool EIGHT_, int GROUP_, bool OFFSETS_, bool SHORT_> struct TileKind {
  static constexpr bool EIGHT = EIGHT_;
  static constexpr int GROUP = GROUP_;
  static constexpr bool OFFSETS = OFFSETS_;
  static constexpr bool SHORT = SHORT_;
};

// The tile of y that is computed at a time: LARGE rows of x, where there are more than FEW, by VECTORS vectors of rows of W.
// Few rows of x take tiles of MEDIUM rows, or of SMALL where one such does.
constexpr int FEW = 8;
#if defined(LOWBIT_AVX512)
constexpr bool ONE_DOT = true;  // the same for codes of 7 bits and of 8
constexpr int VECTORS = 2;
constexpr int SMALL = 4, MEDIUM = 8, LARGE = 6;
#elif defined(LOWBIT_AVX2)
constexpr bool ONE_DOT = false;
constexpr int VECTORS = 2;
constexpr int SMALL = 4, MEDIUM = 4, LARGE = 4;
#else
constexpr bool ONE_DOT = false;
constexpr int VECTORS = 4;
constexpr int SMALL = 2, MEDIUM = 2, LARGE = 2;
#endif
constexpr int STRIP = VECTORS * LANES;  // rows of W: one panel, or two
template <typename Kind, bool SHORT> using TileOf = TileKind<!ONE_DOT && Kind::EIGHT, Kind::GROUP, Kind::OFFSETS, SHORT>;

// A strip of W out of its bits, some units of it.
struct Strip {
  uint8_t* codes;    // quad of k, row, 4
  float* scales;     // unit, row
  float* offsets;    // unit, row
  int8_t* subs;      // group, row
  uint8_t* pairs;    // two groups, row, 2
};

// Bytes for `units` units of n weights at most, and where what lies in them.
template <typename Kind> inline int64_t stripBytes(int64_t units, int64_t n) {
  return units * STRIP * (roundUp(n, CHUNK) + 8 + 2 * Kind::GROUPS);
}

template <typename Kind> inline Strip stripAt(uint8_t* memory, int64_t units, int64_t n) {
  Strip s = {};
  s.codes = memory;
  s.scales = reinterpret_cast<float*>(memory += units * STRIP * roundUp(n, CHUNK));
  s.offsets = reinterpret_cast<float*>(memory += units * STRIP * 4);
  s.subs = reinterpret_cast<int8_t*>(memory += units * STRIP * 4);
  s.pairs = memory + units * STRIP * Kind::GROUPS;
  return s;
}

// Units from … to−1 of a panel become rows first … first+15 of a strip.
template <typename Kind>
inline void unpack(const Panels& p, int64_t panel, int64_t from, int64_t to, int first, const LevelTable& table, const Strip& s) {
  const uint8_t* at = p.bytes + panel * p.panelBytes + from * Kind::unitBytes(p.unit);
  uint8_t* codes = s.codes + 4 * first;
  for (int64_t u = 0; u < to - from; u++) {
    if constexpr (Kind::PLANES)
      if (p.planes) at = planes::headAt<Kind>(p, panel * PANEL, from + u);
    for (int v = 0; v < PANEL_VECTORS; v++) {
      store(s.scales + u * STRIP + first + v * LANES, scalesAt<Kind>(at, v));
      if constexpr (Kind::OFFSETS) store(s.offsets + u * STRIP + first + v * LANES, scalesAt<Kind>(at + Kind::SCALE_BYTES, v));
    }
    for (int g = 0; g < Kind::GROUPS; g++) {
      const int64_t group = u * Kind::GROUPS + g;
      __builtin_memcpy(s.subs + group * STRIP + first, at + Kind::SUBS + g * PANEL, PANEL);
      if constexpr (Kind::OFFSETS)
        if (g % 2 == 0) __builtin_memcpy(s.pairs + group * STRIP + 2 * first, at + Kind::SUB_OFFSETS + g * PANEL, 2 * PANEL);
    }
    if constexpr (Kind::PLANES)
      if (p.planes) {
        at = planes::codesAt<Kind>(p, panel * PANEL, from + u);
        for (int64_t k = 0; k < p.weights(from + u); k += CHUNK, at += planes::HEADS * Kind::CODE_BYTES, codes += QUADS * STRIP * 4)
          planes::chunkQuads<Kind>(at, static_cast<int>(panel % planes::HEADS) * PANEL, codes, STRIP * 4);
        continue;
      }
    at += Kind::CODES;
    for (int64_t k = 0; k < p.weights(from + u); k += CHUNK, at += Kind::CODE_BYTES, codes += QUADS * STRIP * 4) {
      for (int line = 0; line < Kind::CODE_BYTES; line += 64) prefetch(at + AHEAD + line);
      for (int v = 0; v < PANEL_VECTORS; v++)
        each<0, QUADS>([&](auto j) LOWBIT_INLINED {
          storeCodes(codes + (j.value * STRIP + v * LANES) * 4, quadCodes<Kind, j.value>(at, v, table));
        });
    }
  }
}

// sums (T, STRIP) += rows of tile t of x, T of them, times units from … to−1 of a strip.
template <typename Kind, int T>
LOWBIT_OUTLINE void tile(const Strip& s, const Panels& p, int64_t from, int64_t to, const Quantized& x, int64_t t, float* sums) {
  constexpr bool HAS_GROUPS = Kind::GROUP != 0;
  constexpr int GROUPS = HAS_GROUPS ? 256 / (HAS_GROUPS ? Kind::GROUP : 1) : 1;
  const uint8_t* w = s.codes;
  const int8_t* q = x.codes + (t * x.quads * 4 + from * p.unit) * T;
  const int32_t* starts = x.starts + (t * x.groups + from * GROUPS) * T;
  // Whole numbers and floats fit into registers together where there are no groups.
  f32v kept[T][VECTORS];
  if constexpr (!HAS_GROUPS)
#pragma GCC unroll 12
    for (int r = 0; r < T; r++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) kept[r][v] = load(sums + r * STRIP + v * LANES);
  for (int64_t u = from; u < to; u++) {
    i32v ones[T][VECTORS], totals[T][VECTORS];
    if constexpr (HAS_GROUPS)
#pragma GCC unroll 12
      for (int r = 0; r < T; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) totals[r][v] = splatInt(0);
    const int64_t quads = HAS_GROUPS ? Kind::GROUP / 4 : Kind::SHORT ? QUADS : roundUp(p.weights(u), CHUNK) / 4;
#pragma GCC unroll 1
    for (int g = 0; g < GROUPS; g++) {
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
      if constexpr (HAS_GROUPS) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          const i32v sub = signedBytes(s.subs + ((u - from) * GROUPS + g) * STRIP + v * LANES);
#pragma GCC unroll 12
          for (int r = 0; r < T; r++) totals[r][v] = totals[r][v] + ones[r][v] * sub;
        }
      }
    }
    const int64_t line = (t * x.units + u) * T;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      const int64_t at = (u - from) * STRIP + v * LANES;
      const f32v scale = load(s.scales + at), offset = Kind::OFFSETS ? load(s.offsets + at) : splat(0.0f);
      i32v pairs[T];
      if constexpr (HAS_GROUPS && Kind::OFFSETS) {
#pragma GCC unroll 12
        for (int r = 0; r < T; r++) pairs[r] = splatInt(0);
#pragma GCC unroll 1
        for (int g = 0; g < GROUPS; g += 2) {
          const i32v two = bytePairs(s.pairs + ((u - from) * GROUPS + g) * STRIP + v * 2 * LANES);
          const int16_t* one = x.pairs + (t * x.groups + u * GROUPS + g) * T;
#pragma GCC unroll 12
          for (int r = 0; r < T; r++) pairs[r] = dotPairs(pairs[r], two, one + 2 * r);
        }
      }
#pragma GCC unroll 12
      for (int r = 0; r < T; r++) {
        f32v two = splat(0.0f);
        if constexpr (Kind::OFFSETS) two = HAS_GROUPS ? floats(pairs[r]) : splat(x.sums[line + r]);
        if constexpr (HAS_GROUPS) {
          float* sum = sums + r * STRIP + v * LANES;
          store(sum, step<Kind::OFFSETS>(load(sum), totals[r][v], scale, two, offset, x.scales[line + r]));
        } else {
          kept[r][v] = step<Kind::OFFSETS>(kept[r][v], ones[r][v], scale, two, offset, x.scales[line + r]);
        }
      }
    }
  }
  if constexpr (!HAS_GROUPS)
#pragma GCC unroll 12
    for (int r = 0; r < T; r++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) store(sums + r * STRIP + v * LANES, kept[r][v]);
}

// Sums of a tile to where they belong: y (rows, stride), `columns` of STRIP.
inline void put(const float* sums, float* y, int64_t stride, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r++, y += stride, sums += STRIP)
    for (int c = 0; c < columns; c += LANES) {
      if (columns - c >= LANES) store(y + c, load(sums + c));
      else store(y + c, load(sums + c), static_cast<int>(columns - c));
    }
}

// Two to eight rows of x, in tiles of T: each piece of a strip is used as soon as it is out of its bits.
template <typename Kind, int T> inline void fewRows(const Panels& p, const Quantized& x, const LevelTable& table, float* y) {
  const int64_t piece = p.unit >= 256 ? 1 : 256 / p.unit;  // units
  parallel((p.rows + STRIP - 1) / STRIP, [&, piece](int64_t strip) {
    alignas(64) uint8_t memory[STRIP * (256 + 256 / CHUNK * 8 + 2 * Kind::GROUPS)];
    alignas(64) float sums[FEW * STRIP] = {};
    const Strip s = stripAt<Kind>(memory, piece, p.unit);
    const int64_t row = strip * STRIP;
    for (int64_t u = 0; u < p.units; u += piece) {
      const int64_t to = u + piece < p.units ? u + piece : p.units;
      for (int first = 0; first < STRIP && row + first < p.rows; first += PANEL) unpack<Kind>(p, (row + first) / PANEL, u, to, first, table, s);
      for (int64_t t = 0; t < x.tiles; t++) tile<TileOf<Kind, false>, T>(s, p, u, to, x, t, sums + t * T * STRIP);
    }
    put(sums, y + row, p.rows, x.rows, p.rows - row < STRIP ? p.rows - row : STRIP);
  });
}

// Many rows: a strip is taken out of its bits once, and all tiles of x go over it.
template <typename Kind> inline void manyRows(const Panels& p, const Quantized& x, const LevelTable& table, float* y) {
  const int64_t strips = (p.rows + STRIP - 1) / STRIP, bytes = roundUp(stripBytes<Kind>(p.units, p.unit), 64);
  uint8_t* memory = static_cast<uint8_t*>(lowbit_scratch(7, bytes * lowbit_threads()));
  // A task is a strip with all rows of x, or with some of them where there are few strips.
  const int64_t cuts = strips >= 4 * TASKS ? 1 : (4 * TASKS + strips - 1) / strips;
  const int64_t least = (96 + LARGE - 1) / LARGE, share = (x.tiles + cuts - 1) / cuts, tiles = share < least ? least : share;
  const int64_t parts = (x.tiles + tiles - 1) / tiles;
  parallel(strips * parts, [&, memory, bytes, tiles, parts](int64_t task) {
    const int64_t strip = task / parts, begin = task % parts * tiles, end = begin + tiles < x.tiles ? begin + tiles : x.tiles;
    const Strip s = stripAt<Kind>(memory + lowbit_thread() * bytes, p.units, p.unit);
    const int64_t row = strip * STRIP;
    for (int first = 0; first < STRIP && row + first < p.rows; first += PANEL)
      unpack<Kind>(p, (row + first) / PANEL, 0, p.units, first, table, s);
    for (int64_t t = begin; t < end; t++) {
      alignas(64) float sums[LARGE * STRIP] = {};
      if (Kind::GROUP == 0 && p.unit == CHUNK) tile<TileOf<Kind, Kind::GROUP == 0>, LARGE>(s, p, 0, p.units, x, t, sums);
      else tile<TileOf<Kind, false>, LARGE>(s, p, 0, p.units, x, t, sums);
      const int64_t rows = x.rows - t * LARGE < LARGE ? x.rows - t * LARGE : LARGE;
      put(sums, y + t * LARGE * p.rows + row, p.rows, rows, p.rows - row < STRIP ? p.rows - row : STRIP);
    }
  });
}

template <typename Kind> inline void linear(const float* x, const Packed& w, float* y, int64_t rows, int middle, const LevelTable& table) {
  const Panels p = panelsOf<Kind>(w);
  if constexpr (Kind::PLANES)
    if (p.planes && rows * Kind::BITS <= planes::MOST) return w.kernel == 1 ? planes::linear<Kind, true>(x, p, y, rows, middle) : planes::linear<Kind, false>(x, p, y, rows, middle);
  const auto quantized = [=](int T) { return quantize(x, rows, p, {Kind::GROUP, middle, Kind::OFFSETS}, T); };
  if (rows == 1) oneRow<Kind>(p, quantized(1), table, y);
  else if (rows <= SMALL) fewRows<Kind, SMALL>(p, quantized(SMALL), table, y);
  else if (rows <= FEW) fewRows<Kind, MEDIUM>(p, quantized(MEDIUM), table, y);
  else manyRows<Kind>(p, quantized(LARGE), table, y);
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
