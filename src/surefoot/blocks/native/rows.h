/* Bodies of products of rows with their atom's matrix; included by kernels.c for each T. */
#ifndef ROWS
#define ROWS
typedef struct {
  const int64_t *offsets; /* (atoms + 1) rows of each atom, which follow each other */
  int32_t inputs, outputs, channels;
} Rows;
#endif

#define LOAD NAME(load, KIND)
#define STORE NAME(store, KIND)

/* out[k] = sum over i of x[i] M[i, k] for the rows of one atom */
INLINE void NAME(rows_out, KIND)(const Rows *plan, const REAL *x, const REAL *M, REAL *out,
                                 int64_t atom, int c) {
  const int64_t C = plan->channels, I = plan->inputs, K = plan->outputs;
  M += atom * I * K * C + c;
  for (int64_t e = plan->offsets[atom]; e < plan->offsets[atom + 1]; ++e) {
    const REAL *row = x + e * I * C + c;
    REAL *to = out + e * K * C + c;
    for (int64_t k = 0; k < K; ++k) {
      T sum = (T){0};
      for (int64_t i = 0; i < I; ++i) sum += LOAD(row + i * C) * LOAD(M + (i * K + k) * C);
      STORE(to + k * C, sum);
    }
  }
}

/* gx[i] = sum over k of g[k] M[i, k] */
INLINE void NAME(rows_in, KIND)(const Rows *plan, const REAL *g, const REAL *M, REAL *gx,
                                int64_t atom, int c) {
  const int64_t C = plan->channels, I = plan->inputs, K = plan->outputs;
  M += atom * I * K * C + c;
  for (int64_t e = plan->offsets[atom]; e < plan->offsets[atom + 1]; ++e) {
    const REAL *row = g + e * K * C + c;
    REAL *to = gx + e * I * C + c;
    for (int64_t i = 0; i < I; ++i) {
      T sum = (T){0};
      for (int64_t k = 0; k < K; ++k) sum += LOAD(row + k * C) * LOAD(M + (i * K + k) * C);
      STORE(to + i * C, sum);
    }
  }
}

/* gM[i, k] = sum over the rows of x[i] g[k] */
INLINE void NAME(rows_matrix, KIND)(const Rows *plan, const REAL *g, const REAL *x, REAL *gM,
                                    int64_t atom, int c) {
  const int64_t C = plan->channels, I = plan->inputs, K = plan->outputs;
  gM += atom * I * K * C + c;
  for (int64_t i = 0; i < I; ++i)
    for (int64_t k = 0; k < K; ++k) {
      T sum = (T){0};
      for (int64_t e = plan->offsets[atom]; e < plan->offsets[atom + 1]; ++e)
        sum += LOAD(x + (e * I + i) * C + c) * LOAD(g + (e * K + k) * C + c);
      STORE(gM + (i * K + k) * C, sum);
    }
}

#undef LOAD
#undef STORE
