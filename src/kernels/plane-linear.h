// y = x·Wᵀ for a few quantized rows of x and W in planes of bits (bit-planes.h),
// the same bits as the dot products of int-linear.h give: the whole numbers are
// exact in every way of adding them up, and the floats are the same.
//
// By tables (T-MAC, Wei et al., 2024, https://arxiv.org/abs/2407.00088, with exact
// sums as in TL2, Wang et al., 2025, https://arxiv.org/abs/2502.11880): the bits
// that four neighbours of a row of W have in a plane choose among the sixteen
// sums of their activations. A sum, 512 more than it is, has ten bits and is kept
// as five and five, so that eight are added up in bytes.
//
// By counting bits: Σ over the planes of W and the eight of the activations,
// whose highest counts negative, of 2^(b+p) times the bits that both have.
#pragma once
#include "bit-planes.h"
#include "quantize.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace planes {

constexpr int VECTORS = ROWS / BYTES;
constexpr int64_t TASK_BYTES = 150 * 1024;
constexpr int64_t TASKS = 8;
constexpr int64_t AHEAD = 4096;
// Rows of x times bits up to which this is faster than dot products, which take weights out of their bits once for all rows.
constexpr int64_t MOST = 8;

template <typename Kind> constexpr int SPAN = Kind::GROUP == 16 ? 16 : CHUNK;  // weights added up in words at a time
// This much is taken off every code, so that words hold the sum of a chunk: 2^(BITS−1)·127·32 < 2^15.
template <typename Kind> constexpr int HALF = Kind::BITS > 1 ? 1 << (Kind::BITS - 1) : 0;
// Chunks whose sums fit into words together.
template <typename Kind> constexpr int CHUNKS = 1 << (4 - Kind::BITS);

constexpr int TABLE_BYTES = 32;   // of four activations: low halves, high halves
constexpr int SUM_BIAS = 512, LOW_BITS = 5;

// A row of x as the kernels take it.
struct Side {
  uint8_t* bytes;   // tables of four activations each, or planes of eight
  int16_t* starts;  // of each span
};

// The sums of every choice of four activations.
inline void putTable(const int8_t* q, uint8_t* table) {
  int16_t sums[16] = {SUM_BIAS};
  for (int j = 0; j < 4; j++)
    for (int i = 0; i < 1 << j; i++) sums[(1 << j) + i] = static_cast<int16_t>(sums[i] + q[j]);
  for (int i = 0; i < 16; i++) {
    table[i] = static_cast<uint8_t>(sums[i] & ((1 << LOW_BITS) - 1));
    table[16 + i] = static_cast<uint8_t>(sums[i] >> LOW_BITS);
  }
}

// Byte p is bit p of eight activations.
inline void putPlanes(const int8_t* q, uint8_t* planes) {
  uint64_t eight;
  __builtin_memcpy(&eight, q, 8);
  for (int p = 0; p < 8; p++) planes[p] = static_cast<uint8_t>((eight >> p & 0x0101010101010101u) * 0x0102040810204080u >> 56);
}

template <typename Kind, bool TABLE> inline void prepare(const int8_t* q, int64_t quads, const Side& side) {
  if constexpr (TABLE)
    for (int64_t k = 0; k < quads; k++) putTable(q + 4 * k, side.bytes + k * TABLE_BYTES);
  else
    for (int64_t k = 0; k < quads / 2; k++) putPlanes(q + 8 * k, side.bytes + k * 8);
  constexpr int BIAS = TABLE ? SUM_BIAS * (SPAN<Kind> / 4) * ((1 << Kind::BITS) - 1) : 0;
  for (int64_t s = 0; s < quads * 4 / SPAN<Kind>; s++)
    side.starts[s] = static_cast<int16_t>(-BIAS - HALF<Kind> * quantized::sumOf(q + s * SPAN<Kind>, SPAN<Kind>));
}

// Sums of one vector of rows, in words that wrap.
struct Halves {
  words16v even, odd;
};
LOWBIT_INLINE Halves operator+(Halves a, Halves b) { return {a.even + b.even, a.odd + b.odd}; }

// One plane of a span of `LENGTH` lines.
template <int LENGTH> LOWBIT_INLINE Halves tableSums(const uint8_t* lines, const uint8_t* tables) {
  rowBytes low = noBytes(), high = noBytes();
#pragma GCC unroll 4
  for (int line = 0; line < LENGTH; line++, lines += ROWS, tables += 2 * TABLE_BYTES) {
    const rowBytes bits = loadRows(lines), first = lowHalf(bits), second = highHalf(bits);
    low = addBytes(addBytes(low, look(tables, first)), look(tables + TABLE_BYTES, second));
    high = addBytes(addBytes(high, look(tables + 16, first)), look(tables + TABLE_BYTES + 16, second));
  }
  return {evens(low) + times2<LOW_BITS>(evens(high)), odds(low) + times2<LOW_BITS>(odds(high))};
}

template <int LENGTH> LOWBIT_INLINE Halves countSums(const uint8_t* lines, const uint8_t* planes) {
  Halves sum = {};
#pragma GCC unroll 4
  for (int pair = 3; pair >= 0; pair--) {
    rowBytes low = noBytes(), high = noBytes();
#pragma GCC unroll 4
    for (int line = 0; line < LENGTH; line++) {
      const rowBytes bits = loadRows(lines + line * ROWS);
      low = addBytes(low, countBits(andByte(bits, planes + line * 8 + 2 * pair)));
      high = addBytes(high, countBits(andByte(bits, planes + line * 8 + 2 * pair + 1)));
    }
    const words16v even = times2<1>(evens(high)), odd = times2<1>(odds(high));
    if (pair == 3) sum = {evens(low) - even, odds(low) - odd};
    else sum = {times2<2>(sum.even) + even + evens(low), times2<2>(sum.odd) + odd + odds(low)};
  }
  return sum;
}

// A span of weights of all planes, the lowest at `lines`.
template <typename Kind, bool TABLE> LOWBIT_INLINE Halves spanSums(const uint8_t* lines, const uint8_t* bytes, int16_t start) {
  constexpr int LENGTH = SPAN<Kind> / 8;
  Halves sum = {};
#pragma GCC unroll 4
  for (int b = Kind::BITS - 1; b >= 0; b--) {
    const Halves plane = TABLE ? tableSums<LENGTH>(lines + b * PLANE_BYTES, bytes) : countSums<LENGTH>(lines + b * PLANE_BYTES, bytes);
    sum = b == Kind::BITS - 1 ? plane : Halves{times2<1>(sum.even) + plane.even, times2<1>(sum.odd) + plane.odd};
  }
  const words16v more = splatWord(start);
  return {sum.even + more, sum.odd + more};
}

// 64 rows of W for one row of x.
template <typename Kind, bool TABLE> inline void panelRow(const Panels& p, int64_t group, const Quantized& x, int64_t row, const Side& side, float* y) {
  constexpr bool GROUPS = Kind::GROUP != 0;
  constexpr int SPANS = CHUNK / SPAN<Kind>;                               // of a chunk
  constexpr int SIDE_BYTES = (TABLE ? TABLE_BYTES / 4 : 1) * SPAN<Kind>;  // of a span
  constexpr int PARTS = ROWS / LANES;
  alignas(64) float sums[ROWS] = {};
  alignas(64) int16_t words[ROWS];
  const uint8_t* bytes = side.bytes;
  const int16_t* starts = side.starts;
  const int32_t* groupStarts = x.starts + row * x.groups;
  const uint8_t* head = panelAt(p, group);
  for (int64_t u = 0; u < p.units; u++) {
    const uint8_t* chunk = head + HEADS * Kind::CODES;
    const int64_t chunks = roundUp(p.weights(u), CHUNK) / CHUNK;
    i32v totals[PARTS];
    const i32v start = splatInt(GROUPS ? 0 : *groupStarts++);
    for (int i = 0; i < PARTS; i++) totals[i] = start;
    // What the words hold goes into the totals, times the sub-scales of group g.
    const auto flush = [&](int g) LOWBIT_INLINED {
      const i32v first = splatInt(GROUPS ? *groupStarts++ : 0);
#pragma GCC unroll 16
      for (int i = 0; i < PARTS; i++) {
        i32v one = signedWords(words + i * LANES);
        if constexpr (GROUPS) {
          const uint8_t* subs = head + i * LANES / PANEL * Kind::CODES + Kind::SUBS + g * PANEL + i * LANES % PANEL;
          one = (one + first) * signedBytes(reinterpret_cast<const int8_t*>(subs));
        }
        totals[i] = totals[i] + one;
      }
    };
    const auto keep = [&](const Halves (&sum)[VECTORS]) LOWBIT_INLINED {
      for (int v = 0; v < VECTORS; v++) {
        storeWords(words + v * BYTES, sum[v].even);
        storeWords(words + v * BYTES + BYTES / 2, sum[v].odd);
      }
    };
    for (int64_t k = 0; k < chunks;) {
      Halves sum[VECTORS];
      if constexpr (GROUPS) {
        for (int line = 0; line < Kind::BITS * PLANE_BYTES; line += 64) prefetch(chunk + AHEAD + line);
        for (int s = 0; s < SPANS; s++, bytes += SIDE_BYTES, starts++) {
          for (int v = 0; v < VECTORS; v++)
            sum[v] = spanSums<Kind, TABLE>(chunk + s * (SPAN<Kind> / 8) * ROWS + v * BYTES, bytes, *starts);
          keep(sum);
          flush(static_cast<int>(k) * SPANS + s);
        }
        chunk += Kind::BITS * PLANE_BYTES;
        k++;
      } else {
        const int64_t stop = k + CHUNKS<Kind> < chunks ? k + CHUNKS<Kind> : chunks;
        for (bool first = true; k < stop; k++, first = false, chunk += Kind::BITS * PLANE_BYTES, bytes += SIDE_BYTES, starts++) {
          for (int line = 0; line < Kind::BITS * PLANE_BYTES; line += 64) prefetch(chunk + AHEAD + line);
          for (int v = 0; v < VECTORS; v++) {
            const Halves one = spanSums<Kind, TABLE>(chunk + v * BYTES, bytes, *starts);
            sum[v] = first ? one : sum[v] + one;
          }
        }
        keep(sum);
        flush(0);
      }
    }
    for (int i = 0; i < PARTS; i++) {
      const uint8_t* own = head + i * LANES / PANEL * Kind::CODES;
      const int v = i * LANES % PANEL / LANES;
      f32v two = splat(0.0f), offset = two;
      if constexpr (Kind::OFFSETS) {
        offset = scalesAt<Kind>(own + Kind::SCALE_BYTES, v);
        if constexpr (GROUPS) {
          i32v pairs = splatInt(0);
          for (int g = 0; g < Kind::GROUPS; g += 2)
            pairs = dotPairs(pairs, bytePairs(own + Kind::SUB_OFFSETS + g * PANEL + v * 2 * LANES), x.pairs + row * x.groups + u * Kind::GROUPS + g);
          two = floats(pairs);
        } else {
          two = splat(x.sums[row * x.units + u]);
        }
      }
      float* sum = sums + i * LANES;
      store(sum, step<Kind::OFFSETS>(load(sum), totals[i], scalesAt<Kind>(own, v), two, offset, x.scales[row * x.units + u]));
    }
    head = chunk;
  }
  const int64_t left = p.rows - group * ROWS;
  for (int64_t i = 0; i < ROWS && i < left; i += LANES) {
    if (left - i >= LANES) store(y + group * ROWS + i, load(sums + i));
    else store(y + group * ROWS + i, load(sums + i), static_cast<int>(left - i));
  }
}

// Uses scratch slots 5 and 6. A panel stays in the cache for all rows of x.
template <typename Kind, bool TABLE> inline void linear(const float* x, const Panels& p, float* y, int64_t rows, int middle) {
  // HALF is taken off codes in the words and put back with the middle.
  const Quantized q = quantize(x, rows, p, {Kind::GROUP, middle - HALF<Kind>, Kind::OFFSETS}, 1);
  const int64_t sideBytes = q.quads * (TABLE ? TABLE_BYTES : 4), startBytes = roundUp(q.quads * 4 / SPAN<Kind> * 2, 64);
  uint8_t* memory = static_cast<uint8_t*>(lowbit_scratch(5, rows * (sideBytes + startBytes)));
  const auto sideOf = [=](int64_t r) {
    uint8_t* at = memory + r * (sideBytes + startBytes);
    return Side{at, reinterpret_cast<int16_t*>(at + sideBytes)};
  };
  for (int64_t r = 0; r < rows; r++) prepare<Kind, TABLE>(q.codes + r * q.quads * 4, q.quads, sideOf(r));
  const int64_t groups = count(p), most = TASK_BYTES / (HEADS * p.panelBytes + 1) + 1, fair = (groups + TASKS - 1) / TASKS;
  const int64_t task = most < fair ? most : fair;
  parallel((groups + task - 1) / task, [&, task, groups](int64_t index) {
    for (int64_t group = index * task; group < groups && group < (index + 1) * task; group++)
      for (int64_t r = 0; r < rows; r++) panelRow<Kind, TABLE>(p, group, q, r, sideOf(r), y + r * p.rows);
  });
}

}  // namespace planes

}  // namespace lowbit::LOWBIT_BODY
