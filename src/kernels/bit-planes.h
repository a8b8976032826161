// The other arrangement of weights of 1 … 4 bits for integer products: planes of
// bits, for tables and popcounts (plane-linear.h).
//
// Four panels of panels.h, 64 rows of W, become one of as many bytes. Its units
// along k are the same; a unit is the heads of the four, and then for each 32
// weights and each plane of bits, the lowest first, four lines of 64 bytes. A
// byte of a line holds the bits of eight neighbours of one row, the first the
// lowest.
//
// A vector of bytes holds its first half of rows in its even bytes and the
// second half in the odd ones: words taken from it are rows in their order.
#pragma once
#include "panels.h"
#include "plane-simd.h"

namespace lowbit::LOWBIT_BODY {

namespace planes {

constexpr int ROWS = 64;            // of a panel, and bytes of a line
constexpr int HEADS = ROWS / PANEL;
constexpr int LINES = CHUNK / 8;    // of a plane of a chunk
constexpr int PLANE_BYTES = LINES * ROWS;
constexpr int SPLIT = BYTES / 2 < PANEL ? BYTES / 2 : PANEL;  // rows of a panel of panels.h whose bytes are two apart

// Where the byte of a row is in a line.
constexpr int byteOf(int row) {
  const int i = row % BYTES;
  return row - i + 2 * (i % (BYTES / 2)) + i / (BYTES / 2);
}

template <typename Kind> inline int64_t unitBytes(int64_t n) { return HEADS * Kind::unitBytes(n); }

// Panel `group` of 64 rows; a row that W does not have may lie in it.
inline uint8_t* panelAt(const Panels& p, int64_t group) { return const_cast<uint8_t*>(p.bytes) + group * HEADS * p.panelBytes; }
inline int64_t count(const Panels& p) { return (p.rows + ROWS - 1) / ROWS; }

// Unit u in which a row of W lies, and the head of its sixteen rows there.
template <typename Kind> inline const uint8_t* unitAt(const Panels& p, int64_t row, int64_t u) { return panelAt(p, row / ROWS) + u * unitBytes<Kind>(p.unit); }
template <typename Kind> inline const uint8_t* headAt(const Panels& p, int64_t row, int64_t u) {
  return unitAt<Kind>(p, row, u) + row % ROWS / PANEL * Kind::CODES;
}
// And the planes behind the heads.
template <typename Kind> inline const uint8_t* codesAt(const Panels& p, int64_t row, int64_t u) { return unitAt<Kind>(p, row, u) + HEADS * Kind::CODES; }

// Turns the four panels of `group` in place. `copy` has room for them.
template <typename Kind> inline void turn(const Panels& p, int64_t group, uint8_t* copy) {
  uint8_t* out = panelAt(p, group);
  const int64_t all = p.count() - group * HEADS, there = all < HEADS ? all : HEADS;
  __builtin_memcpy(copy, out, static_cast<size_t>(there * p.panelBytes));
  __builtin_memset(copy + there * p.panelBytes, 0, static_cast<size_t>((HEADS - there) * p.panelBytes));
  const LevelTable none = {};
  alignas(64) uint8_t codes[HEADS * QUADS * 64];  // panel, quad, row, 4
  for (int64_t u = 0; u < p.units; u++) {
    const uint8_t* from = copy + u * Kind::unitBytes(p.unit);
    for (int h = 0; h < HEADS; h++, out += Kind::CODES) __builtin_memcpy(out, from + h * p.panelBytes, Kind::CODES);
    from += Kind::CODES;
    for (int64_t at = 0; at < p.weights(u); at += CHUNK, from += Kind::CODE_BYTES, out += Kind::BITS * PLANE_BYTES) {
      for (int h = 0; h < HEADS; h++)
        for (int v = 0; v < PANEL_VECTORS; v++)
          each<0, QUADS>([&](auto j) LOWBIT_INLINED {
            storeCodes(codes + (h * QUADS + j.value) * 64 + v * BYTES, quadCodes<Kind, j.value>(from + h * p.panelBytes, v, none));
          });
      for (int row = 0; row < ROWS; row++)
        for (int line = 0; line < LINES; line++) {
          const uint8_t* quads = codes + (row / PANEL * QUADS + 2 * line) * 64 + row % PANEL * 4;
          uint64_t eight = 0;
          __builtin_memcpy(&eight, quads, 4);
          __builtin_memcpy(reinterpret_cast<uint8_t*>(&eight) + 4, quads + 64, 4);
          // The lowest bits of eight bytes, brought together in the highest byte.
          for (int b = 0; b < Kind::BITS; b++)
            out[b * PLANE_BYTES + line * ROWS + byteOf(row)] =
                static_cast<uint8_t>((eight >> b & 0x0101010101010101u) * 0x0102040810204080u >> 56);
        }
    }
  }
}

// The codes of one row in unit u.
template <typename Kind> inline void rowCodes(const Panels& p, int64_t row, int64_t u, uint8_t* codes) {
  const uint8_t* at = codesAt<Kind>(p, row, u) + byteOf(static_cast<int>(row % ROWS));
  for (int64_t from = 0; from < p.weights(u); from += CHUNK, at += Kind::BITS * PLANE_BYTES)
    for (int k = 0; k < CHUNK; k++) {
      int code = 0;
      for (int b = 0; b < Kind::BITS; b++) code |= (at[b * PLANE_BYTES + k / 8 * ROWS] >> k % 8 & 1) << b;
      codes[from + k] = static_cast<uint8_t>(code);
    }
}

// Codes of a chunk of sixteen rows, from `row` on, as quads of bytes: quad j of a row at out + j·stride + 4·row.
template <typename Kind> inline void chunkQuads(const uint8_t* chunk, int row, uint8_t* out, int64_t stride) {
  for (int first = 0; first < PANEL; first += SPLIT) {
    const int start = byteOf(row + first);
    for (int j = 0; j < QUADS; j++) {
      uint32_t quads[SPLIT] = {};
      for (int b = 0; b < Kind::BITS; b++) {
        const uint8_t* line = chunk + b * PLANE_BYTES + j / 2 * ROWS + start;
        // Four bits become the lowest ones of four bytes.
        for (int i = 0; i < SPLIT; i++) quads[i] |= ((line[2 * i] >> j % 2 * 4 & 15u) * 0x00204081u & 0x01010101u) << b;
      }
      __builtin_memcpy(out + j * stride + 4 * first, quads, sizeof quads);
    }
  }
}

}  // namespace planes

}  // namespace lowbit::LOWBIT_BODY
