/* Bodies of splines: six rows of a table, weighted; included by kernels.c for each T. */
#define LOAD NAME(load, KIND)
#define STORE NAME(store, KIND)
#define SUM NAME(sum, KIND)

/* out[c] = sum over j of b[j] rows[j, c] */
INLINE void NAME(spline_out, KIND)(const REAL *rows, const REAL *b, REAL *out, int64_t C,
                                   int64_t c) {
  T sum = (T){0};
  UNROLL for (int j = 0; j < 6; ++j) sum += b[j] * LOAD(rows + j * C + c);
  STORE(out + c, sum);
}

/* gb[j] += sum over these channels of g[c] rows[j, c] */
INLINE void NAME(spline_in, KIND)(const REAL *rows, const REAL *g, T *sums, int64_t C, int64_t c) {
  const T value = LOAD(g + c);
  UNROLL for (int j = 0; j < 6; ++j) sums[j] += value * LOAD(rows + j * C + c);
}

INLINE void NAME(spline_add, KIND)(const T *sums, REAL *gb) {
  for (int j = 0; j < 6; ++j) gb[j] += SUM(sums[j]);
}

#undef LOAD
#undef STORE
#undef SUM
