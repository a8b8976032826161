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
      const int64_t piece = p.unit >= 256 ? 1 : 256 / p.unit;  // units
      parallel(p.count(), [&w, p, piece](int64_t panel) {
        for (int64_t u = 0; u < p.units; u += piece) panels::packUnits<F>(w, p, panel, u, u + piece < p.units ? u + piece : p.units);
      });
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
