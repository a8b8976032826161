// A = U·diag(s)·Vᵀ by one-sided Jacobi in 64 bits: see svd.ts. A sweep goes
// through all pairs of columns in rounds, as a tournament does: the pairs of a
// round have no column in common and are turned at the same time.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {
namespace jacobi {

constexpr int SWEEPS = 60;
constexpr double ORTHOGONAL = 1e-14;
// Sums side by side, for the compiler's vectors; elements of the pairs of one task.
constexpr int SIDES = 8;
constexpr int64_t TASK = 8192;

inline double magnitude(double x) { return x < 0 ? -x : x; }

inline double dot(const double* a, const double* b, int64_t n) {
  double parts[SIDES] = {};
  int64_t i = 0;
  for (; i + SIDES <= n; i += SIDES)
    for (int s = 0; s < SIDES; s++) parts[s] += a[i + s] * b[i + s];
  for (; i < n; i++) parts[0] += a[i] * b[i];
  double sum = 0;
  for (int s = 0; s < SIDES; s++) sum += parts[s];
  return sum;
}

inline void turn(double* p, double* q, int64_t n, double cosine, double sine) {
  for (int64_t i = 0; i < n; i++) {
    const double first = p[i], second = q[i];
    p[i] = cosine * first - sine * second;
    q[i] = sine * first + cosine * second;
  }
}

// Makes columns p and q of A orthogonal, and turns those of V along; false when they were.
inline bool orthogonalize(double* p, double* q, int64_t m, double* vp, double* vq, int64_t n) {
  const double alpha = dot(p, p, m), beta = dot(q, q, m), gamma = dot(p, q, m);
  if (!(magnitude(gamma) > ORTHOGONAL * __builtin_sqrt(alpha * beta))) return false;
  const double zeta = (beta - alpha) / (2 * gamma);
  const double tangent = (zeta >= 0 ? 1 : -1) / (magnitude(zeta) + __builtin_sqrt(1 + zeta * zeta));
  const double cosine = 1 / __builtin_sqrt(1 + tangent * tangent);
  turn(p, q, m, cosine, cosine * tangent);
  turn(vp, vq, n, cosine, cosine * tangent);
  return true;
}

}  // namespace jacobi

void svd(Arguments arguments) {
  using namespace jacobi;
  float* u = arguments.floats();
  float* s = arguments.floats();
  float* v = arguments.floats();
  const int64_t m = arguments.size(), n = arguments.size();
  if (n == 0) return;

  // Columns of A and of V, one after the other; norms; their order; whether a pair was turned.
  double* a = static_cast<double*>(lowbit_scratch(0, n * m * 8));
  double* w = static_cast<double*>(lowbit_scratch(1, n * n * 8));
  double* norms = static_cast<double*>(lowbit_scratch(2, n * 8));
  int64_t* order = static_cast<int64_t*>(lowbit_scratch(3, n * 8));
  uint8_t* turned = static_cast<uint8_t*>(lowbit_scratch(4, n));
  for (int64_t c = 0; c < n; c++) {
    for (int64_t r = 0; r < m; r++) a[c * m + r] = u[r * n + c];
    for (int64_t r = 0; r < n; r++) w[c * n + r] = r == c ? 1 : 0;
  }

  // An even number of players; a last one that is not there gives its partner a rest.
  const int64_t players = n + n % 2, pairs = players / 2;
  const int64_t together = TASK / (m + n) + 1;
  for (int sweep = 0; sweep < SWEEPS; sweep++) {
    bool any = false;
    for (int64_t round = 0; round < players - 1; round++) {
      parallel((pairs + together - 1) / together, [=](int64_t task) {
        for (int64_t k = task * together; k < pairs && k < (task + 1) * together; k++) {
          // The last player stays; the others go round in a circle.
          const int64_t one = (round + k) % (players - 1);
          const int64_t other = k == 0 ? players - 1 : (round - k + players - 1) % (players - 1);
          const int64_t p = one < other ? one : other, q = one < other ? other : one;
          turned[k] = q < n && orthogonalize(a + p * m, a + q * m, m, w + p * n, w + q * n, n);
        }
      });
      for (int64_t k = 0; k < pairs; k++) any = any || turned[k];
    }
    if (!any) break;
  }

  for (int64_t c = 0; c < n; c++) {
    norms[c] = __builtin_sqrt(dot(a + c * m, a + c * m, m));
    int64_t at = c;
    for (; at > 0 && norms[order[at - 1]] < norms[c]; at--) order[at] = order[at - 1];
    order[at] = c;
  }
  for (int64_t to = 0; to < n; to++) {
    const int64_t from = order[to];
    const double norm = norms[from];
    s[to] = static_cast<float>(norm);
    for (int64_t r = 0; r < m; r++) u[r * n + to] = norm > 0 ? static_cast<float>(a[from * m + r] / norm) : 0.0f;
    for (int64_t r = 0; r < n; r++) v[r * n + to] = static_cast<float>(w[from * n + r]);
  }
}

}  // namespace lowbit::LOWBIT_BODY
