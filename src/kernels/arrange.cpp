// Makes the panels of a packed matrix for int8 activations: see panels.h. Not
// an operation: src/backends/heap.ts calls both when it uploads a weight.
#include "abi.h"
#include "bit-planes.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// In a descriptor whose `activations` are set, writes the bytes of its panels into `panels`; and 0 into `kernel` where there
// is no choice.
void arrangedBytes(Arguments a) {
  Packed& w = *reinterpret_cast<Packed*>(a.floats());
  withFormat(w, [&w](auto format) {
    using F = decltype(format);
    if constexpr (isCoded<F>) {
      const Panels p = panelsOf<KindOf<F>>(w);
      if (!KindOf<F>::PLANES) w.kernel = 0;
      w.panels = static_cast<double>((w.kernel != 0 ? roundUp(p.count(), planes::HEADS) : p.count()) * p.panelBytes);
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
      if constexpr (KindOf<F>::PLANES)
        if (p.planes) {
          const int64_t bytes = planes::HEADS * p.panelBytes;
          uint8_t* copies = static_cast<uint8_t*>(lowbit_scratch(5, bytes * lowbit_threads()));
          parallel(planes::count(p), [=](int64_t group) { planes::turn<KindOf<F>>(p, group, copies + lowbit_thread() * bytes); });
        }
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
