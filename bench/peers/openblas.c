/* y = x·wᵀ with OpenBLAS, for bench/linear.ts. First line out: which of its
 * kernels it chose. Then for each number read, that many products: a JSON
 * object with the seconds of each and one element of the result. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

extern char *openblas_get_corename(void);
extern void openblas_set_num_threads(int threads);

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  const int n = atoi(arguments[1]);
  const size_t size = (size_t)n * (size_t)n;
  float *x = malloc(4 * size), *w = malloc(4 * size), *y = malloc(4 * size);
  if (!x || !w || !y) return 1;
  for (size_t i = 0; i < size; i++) {
    x[i] = (float)(i * 7 % 13) / 8 - 0.75f;
    w[i] = (float)(i * 5 % 11) / 8 - 0.75f;
  }
  openblas_set_num_threads(atoi(arguments[2]));
  printf("%s\n", openblas_get_corename());
  fflush(stdout);
  int products;
  while (scanf("%d", &products) == 1) {
    printf("{\"seconds\":[");
    for (int i = 0; i < products; i++) {
      const double start = now();
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1, x, n, w, n, 0, y, n);
      printf("%s%.9f", i ? "," : "", now() - start);
    }
    printf("],\"element\":%.9g}\n", y[size - 2]);
    fflush(stdout);
  }
  return 0;
}
