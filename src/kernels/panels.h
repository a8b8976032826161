// Weights rearranged for integer products, once, when they are uploaded.
//
// A panel is 16 rows of W; what is said of a row there is a lane. Along k a
// panel is a row of units, one for each group of activations (`activations`
// weights, the last unit fewer), in the order in which kernels read them:
//
//   scales      16 × f16 (f32 for `codes`)
//   offsets     the same, in formats with offsets
// and, in formats with sub-scales, whose units all have 256 weights,
//   sub-scales  16 × i8 for each GROUP weights
//   theirs of offsets  16 × (u8, u8) for each two such groups
// and then
//   codes       for each 32 weights, 64·BITS bytes: planes of 8, 4, 2 or 1 bit
//
// Codes of 3 bits are planes of 2 and 1, of 5 bits 4 and 1, of 6 bits 4 and 2.
// A plane of L bits is lines of 64 bytes: line v, bits L·j … of byte 4·r + b, is
// weight 4·(v·8/L + j) + b of row r. Rows and weights that W does not have are zeros.
#pragma once
#include "../formats/formats.h"
#include "int-simd.h"

namespace lowbit::LOWBIT_BODY {

constexpr int PANEL = 16;   // rows
constexpr int CHUNK = 32;   // weights of a row whose codes stand together
constexpr int QUADS = 8;    // fours of weights in a chunk
constexpr int PANEL_VECTORS = PANEL / LANES;

inline int64_t roundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// How the panels of a format look: what its kernels are compiled for.
template <int BITS_, int GROUP_, bool OFFSETS_, bool TABLE_, bool WIDE_> struct PanelKind {
  static constexpr int BITS = BITS_;
  static constexpr int GROUP = GROUP_;        // weights that share a sub-scale; 0: there are none
  static constexpr bool OFFSETS = OFFSETS_;
  static constexpr bool TABLE = TABLE_;       // codes go through a table of levels
  static constexpr bool WIDE = WIDE_;         // scales are float32
  static constexpr int LOW = BITS == 8 ? 8 : BITS >= 4 ? 4 : BITS >= 2 ? 2 : 1;  // bits of the first plane
  static constexpr int HIGH = BITS - LOW;
  static constexpr bool EIGHT = BITS == 8 || TABLE;  // bytes above 127 are multiplied
  static constexpr int CODE_BYTES = 64 * BITS;       // of a chunk
  static constexpr int SCALE_BYTES = PANEL * (WIDE ? 4 : 2);
  static_assert(HIGH == 0 || HIGH == 1 || HIGH == 2, "planes of 8, 4, 2 and 1 bits");
  static constexpr bool PLANES = BITS <= 4 && !TABLE;  // may become planes of bits
  static_assert(GROUP == 0 || GROUP == 16 || GROUP == 32, "sub-scales of a chunk or half of one");

  static constexpr int GROUPS = GROUP ? 256 / (GROUP ? GROUP : 1) : 0;  // of a unit
  static constexpr int SUBS = SCALE_BYTES * (OFFSETS ? 2 : 1);          // where sub-scales begin in a unit,
  static constexpr int SUB_OFFSETS = SUBS + GROUPS * PANEL;             // theirs of offsets,
  static constexpr int CODES = SUB_OFFSETS + (OFFSETS ? GROUPS * PANEL : 0);  // and the codes
  // Bytes of a unit of n weights.
  static constexpr int64_t unitBytes(int64_t n) { return CODES + (n + CHUNK - 1) / CHUNK * CODE_BYTES; }
};

template <typename F> constexpr bool hasWideScales = false;
template <bool OFFSET> constexpr bool hasWideScales<LevelBytes<OFFSET>> = true;

template <typename F>
using KindOf = PanelKind<F::BITS, F::SUBSCALES ? F::GROUP : 0, F::OFFSETS, hasLevels<F>, hasWideScales<F>>;

// Level of byte b is b − middle: of a code, or of what the table has for it.
template <typename F> constexpr int middleOf() { return hasLevels<F> ? 128 : F::MIDDLE; }

template <typename F> LOWBIT_INLINE LevelTable tableOf() {
  LevelTable t = {};
  if constexpr (hasLevels<F>)
    for (int i = 0; i < 16; i++) t.bytes[i] = static_cast<uint8_t>(F::LEVELS[i] + 128);
  return t;
}

// Where the panels of a matrix are, and its units along k.
struct Panels {
  const uint8_t* bytes;
  int64_t panelBytes;
  int64_t rows, cols;
  int64_t unit;   // weights of a unit
  int64_t units;
  bool planes;    // turned into planes of bits: bit-planes.h

  int64_t count() const { return roundUp(rows, PANEL) / PANEL; }
  int64_t weights(int64_t u) const { return unit < cols - u * unit ? unit : cols - u * unit; }
};

template <typename Kind> inline Panels panelsOf(const Packed& w) {
  Panels p = {};
  p.bytes = reinterpret_cast<const uint8_t*>(static_cast<uintptr_t>(w.panels));
  p.rows = static_cast<int64_t>(w.rows);
  p.cols = static_cast<int64_t>(w.cols);
  p.unit = static_cast<int64_t>(w.activations);
  p.units = (p.cols + p.unit - 1) / p.unit;
  p.planes = w.kernel != 0;
  if (p.units > 0) p.panelBytes = (p.units - 1) * Kind::unitBytes(p.unit) + Kind::unitBytes(p.weights(p.units - 1));
  return p;
}

template <int J> struct Index {
  static constexpr int value = J;
};

template <int FROM, int TO, typename F> LOWBIT_INLINE void each(const F& f) {
  if constexpr (FROM < TO) {
    f(Index<FROM>{});
    each<FROM + 1, TO>(f);
  }
}

// Quad j (0 … 7) of a chunk: four codes for each of LANES rows, from vector v of the panel on.
template <typename Kind, int J> LOWBIT_INLINE codes8v quadCodes(const uint8_t* chunk, int v, const LevelTable& table) {
  constexpr int LOW = Kind::LOW, HIGH = Kind::HIGH, MASK = (1 << LOW) - 1;
  constexpr int PER_LINE = 8 / LOW;
  codes8v codes = loadCodes(chunk + J / PER_LINE * 64 + v * 4 * LANES);
  if constexpr (J % PER_LINE) codes = right<J % PER_LINE * LOW>(codes);
  if constexpr (LOW < 8) codes = codes & MASK;
  if constexpr (HIGH > 0) {
    constexpr int PER_HIGH = 8 / HIGH, SHIFT = J % PER_HIGH * HIGH;
    codes8v high = loadCodes(chunk + 64 * LOW + J / PER_HIGH * 64 + v * 4 * LANES);
    if constexpr (SHIFT > LOW) high = right<SHIFT - LOW>(high);
    if constexpr (SHIFT < LOW) high = left<LOW - SHIFT>(high);
    codes = codes | (high & (((1 << HIGH) - 1) << LOW));
  }
  if constexpr (Kind::TABLE) codes = lookUp(table, codes);
  return codes;
}

// The scales (or offsets) of LANES rows.
template <typename Kind> LOWBIT_INLINE f32v scalesAt(const uint8_t* at, int v) {
  if constexpr (Kind::WIDE) return load(reinterpret_cast<const float*>(at) + v * LANES);
  else return halves(reinterpret_cast<const uint16_t*>(at) + v * LANES);
}

// One unit's share of a sum: sum + s·(scale·I1 + offset·I2).
template <bool OFFSETS> LOWBIT_INLINE f32v step(f32v sum, i32v one, f32v scale, f32v two, f32v offset, float s) {
  f32v value = floats(one) * scale;
  if constexpr (OFFSETS) value = fma(two, offset, value);
  return fma(value, splat(s), sum);
}

// Of panels that were turned into planes of bits: bit-planes.h.
namespace planes {
template <typename Kind> const uint8_t* headAt(const Panels& p, int64_t row, int64_t u);
template <typename Kind> void rowCodes(const Panels& p, int64_t row, int64_t u, uint8_t* codes);
}  // namespace planes

namespace panels {

// Bits of a plane: byte 4·r + b of `quads` 4·j … becomes LANES of a line.
template <int WIDTH> inline void packPlane(const uint8_t* quads, int shift, uint8_t* lines) {
  constexpr int PER_LINE = 8 / WIDTH, MASK = (1 << WIDTH) - 1;
  for (int line = 0; line < WIDTH; line++)
    for (int i = 0; i < 64; i++) {
      int byte = 0;
      for (int j = 0; j < PER_LINE; j++) byte |= (quads[(line * PER_LINE + j) * 64 + i] >> shift & MASK) << WIDTH * j;
      lines[line * 64 + i] = static_cast<uint8_t>(byte);
    }
}

template <typename Kind> LOWBIT_INLINE void putScale(uint8_t* at, int r, float scale) {
  if constexpr (Kind::WIDE) reinterpret_cast<float*>(at)[r] = scale;
  else reinterpret_cast<uint16_t*>(at)[r] = nearestHalf(scale);
}

// Units from … to−1 of a panel, at most 256 weights of a row together, from the blocks of the format: to the panel's bytes.
template <typename F> inline void packUnits(const Packed& w, const Panels& p, int64_t panel, int64_t from, int64_t to) {
  using Kind = KindOf<F>;
  static_assert(!F::SUBSCALES || F::BLOCK == 256, "units with sub-scales have 256 weights");
  alignas(64) uint8_t codes[PANEL][256];
  alignas(64) uint8_t quads[64 * 64];
  Unpacked u;
  uint8_t* first = const_cast<uint8_t*>(p.bytes) + panel * p.panelBytes + from * Kind::unitBytes(p.unit);
  const int64_t row = panel * PANEL, rows = p.rows - row < PANEL ? p.rows - row : PANEL;
  const int64_t start = from * p.unit, n = (to < p.units ? to * p.unit : p.cols) - start, padded = roundUp(n, CHUNK);
  for (int r = 0; r < PANEL; r++) {
    if (r >= rows) __builtin_memset(codes[r], 0, static_cast<size_t>(padded));
    uint8_t* out = first;
    for (int64_t unit = from; unit < to; unit++, out += Kind::unitBytes(p.unit)) {
      if (r >= rows) {
        u.scale = u.offset = 0.0f;
        __builtin_memset(u.sub, 0, sizeof u.sub);
        __builtin_memset(u.subOffset, 0, sizeof u.subOffset);
      } else {
        for (int64_t at = 0; at < p.weights(unit); at += F::BLOCK) {
          F::unpack(w, row + r, (unit * p.unit + at) / F::BLOCK, u);
          __builtin_memcpy(codes[r] + unit * p.unit - start + at, u.codes, F::BLOCK);
        }
      }
      putScale<Kind>(out, r, u.scale);
      if constexpr (F::OFFSETS) putScale<Kind>(out + Kind::SCALE_BYTES, r, u.offset);
      for (int g = 0; g < Kind::GROUPS; g++) {
        out[Kind::SUBS + g * PANEL + r] = static_cast<uint8_t>(u.sub[g]);
        if constexpr (F::OFFSETS) out[Kind::SUB_OFFSETS + g / 2 * 2 * PANEL + 2 * r + g % 2] = u.subOffset[g];
      }
    }
    for (int64_t at = n; at < padded; at++) codes[r][at] = 0;
  }
  for (int64_t k = 0; k < padded / 4; k++)
    for (int r = 0; r < PANEL; r++) __builtin_memcpy(quads + k * 64 + 4 * r, codes[r] + 4 * k, 4);
  const uint8_t* chunk = quads;
  for (int64_t unit = from; unit < to; unit++, first += Kind::unitBytes(p.unit)) {
    uint8_t* out = first + Kind::CODES;
    for (int64_t at = 0; at < p.weights(unit); at += CHUNK, out += Kind::CODE_BYTES, chunk += QUADS * 64) {
      packPlane<Kind::LOW>(chunk, 0, out);
      if constexpr (Kind::HIGH > 0) packPlane<Kind::HIGH>(chunk, Kind::LOW, out + 64 * Kind::LOW);
    }
  }
}

// The codes and scales of one row in unit u, from its panel.
template <typename F> inline void unpackUnit(const Panels& p, int64_t row, int64_t u, Unpacked& out) {
  using Kind = KindOf<F>;
  const int64_t n = p.weights(u);
  const int r = static_cast<int>(row % PANEL);
  const uint8_t* at = p.bytes + row / PANEL * p.panelBytes + u * Kind::unitBytes(p.unit);
  if (p.planes) at = planes::headAt<Kind>(p, row, u);
  const uint8_t* chunk = at + Kind::CODES;
  const auto scale = [r](const uint8_t* from) {
    if constexpr (Kind::WIDE) return reinterpret_cast<const float*>(from)[r];
    else return half(reinterpret_cast<const uint16_t*>(from)[r]);
  };
  out.scale = scale(at);
  if constexpr (F::OFFSETS) out.offset = scale(at + Kind::SCALE_BYTES);
  for (int g = 0; g < Kind::GROUPS; g++) {
    out.sub[g] = static_cast<int8_t>(at[Kind::SUBS + g * PANEL + r]);
    if constexpr (F::OFFSETS) out.subOffset[g] = at[Kind::SUB_OFFSETS + g / 2 * 2 * PANEL + 2 * r + g % 2];
  }
  if (p.planes) return planes::rowCodes<Kind>(p, row, u, out.codes);
  for (int64_t from = 0; from < n; from += CHUNK, chunk += Kind::CODE_BYTES) {
    for (int k = 0; k < CHUNK; k++) {
      const auto bits = [=](const uint8_t* plane, int width) {
        const int perLine = 8 / width, quad = k / 4;
        return plane[quad / perLine * 64 + 4 * r + k % 4] >> quad % perLine * width & ((1 << width) - 1);
      };
      int code = bits(chunk, Kind::LOW);
      if constexpr (Kind::HIGH > 0) code |= bits(chunk + 64 * Kind::LOW, Kind::HIGH) << Kind::LOW;
      out.codes[from + k] = static_cast<uint8_t>(code);
    }
  }
}

// A unit as valuesOf() takes blocks: whole, or the last one of a row.
template <typename F> struct AsBlock : F {
  static constexpr int BLOCK = 256;
};

}  // namespace panels

// Weights from … from+n−1 of a row of a matrix that was arranged, as floats.
template <typename F> inline void decodePanels(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
  const Panels p = panelsOf<KindOf<F>>(w);
  Unpacked u;
  const int64_t end = from + n;
  for (int64_t at = from; at < end;) {
    const int64_t unit = at / p.unit, start = unit * p.unit;
    const int first = static_cast<int>(at - start), last = static_cast<int>(end - start < p.unit ? end - start : p.unit);
    panels::unpackUnit<F>(p, row, unit, u);
    valuesOf<panels::AsBlock<F>>(u, first, last, out);
    out += last - first;
    at += last - first;
  }
}

// The same of any packed matrix.
inline void decodeWeights(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
  if (w.panels == 0) return decode(w, row, from, n, out);
  withFormat(w, [=, &w](auto format) {
    using F = decltype(format);
    if constexpr (isCoded<F>) decodePanels<F>(w, row, from, n, out);
  });
}

}  // namespace lowbit::LOWBIT_BODY
