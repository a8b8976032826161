// Makes the panels of a packed matrix for int8 activations: see panels.h. Not
// an operation: src/backends/heap.ts calls both when it uploads a weight.
#include "abi.h"
#include "panels.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// In a descriptor whose `activations` are set, writes the bytes of its panels into `panels`.
void arrangedBytes(Arguments a) {
  Packed& w = *reinterpret_cast<Packed*>(a.floats());
  withFormat(w, [&w](auto format) {
    using F = decltype(format);
    if constexpr (isCoded<F>) {
      const Panels p = panelsOf<KindOf<F>>(w);
      w.panels = static_cast<double>(p.count() * p.panelBytes);
    }
  });
}

// Writes the panels from the parts; a task is one panel.
void arrange(Arguments a) {
  const Packed& w = *reinterpret_cast<const Packed*>(a.floats());
  withFormat(w, [&w](auto format) {
    using F = decltype(format);
    if constexpr (isCoded<F>) {
      const Panels p = panelsOf<KindOf<F>>(w);
      parallel(p.count(), [&w, p](int64_t panel) {
        const int64_t row = panel * PANEL, rows = p.rows - row < PANEL ? p.rows - row : PANEL;
        uint8_t* out = const_cast<uint8_t*>(p.bytes) + panel * p.panelBytes;
        for (int64_t u = 0; u < p.units; u++, out += KindOf<F>::unitBytes(p.unit))
          panels::packUnit<F>(w, row, rows, u * p.unit, p.weights(u), out);
      });
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
