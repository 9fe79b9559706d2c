/* Bodies of rotations of an atom's coefficients into the frames of its edges; included by kernels.c
 * for each T. A rotation is kept by degree l: the rows |m| <= mmax of its matrix, 2 l + 1 entries
 * each. */
#ifndef TURNS
#define TURNS
typedef struct {
  const int64_t *atoms;   /* (ends, edges) whose coefficients are turned */
  const int64_t *order;   /* (ends, edges) sorts the edges of an end by atom */
  const int64_t *offsets; /* (ends, atom_count + 1) */
  const int64_t *places;  /* (rows, by degree) where a row stands in the result */
  int64_t edges, atom_count;
  int32_t lmax, mmax, ends, rows, entries, components, channels;
} Turns;

#define WIDEST 23 /* components of degree 11, HIGHEST in turning.py, which refuses more */

/* Degrees up to 4 are unrolled by the compiler. */
#define EACH_DEGREE(name, ...)                                       \
  for (int l = 0, row = 0, entry = 0; l <= plan->lmax; ++l) {        \
    const int size = 2 * l + 1;                                      \
    const int kept = 2 * (l < plan->mmax ? l : plan->mmax) + 1;      \
    switch (size) {                                                  \
      case 1: name(plan, row, entry, l * l, kept, 1, __VA_ARGS__); break;   \
      case 3: name(plan, row, entry, l * l, kept, 3, __VA_ARGS__); break;   \
      case 5: name(plan, row, entry, l * l, kept, 5, __VA_ARGS__); break;   \
      case 7: name(plan, row, entry, l * l, kept, 7, __VA_ARGS__); break;   \
      case 9: name(plan, row, entry, l * l, kept, 9, __VA_ARGS__); break;   \
      default: name(plan, row, entry, l * l, kept, size, __VA_ARGS__); break; \
    }                                                                \
    row += kept;                                                     \
    entry += kept * size;                                            \
  }
#endif

#define LOAD NAME(load, KIND)
#define STORE NAME(store, KIND)
#define SUM NAME(sum, KIND)

/* out[m] = sum over k of D[m, k] x[k], one degree of one end */
INLINE void NAME(turn_in, KIND)(const Turns *plan, int row, int entry, int first, int kept,
                                const int size, const REAL *D, const REAL *x, REAL *out, int c) {
  const int64_t C = plan->channels, stride = (int64_t)plan->ends * C;
  T value[WIDEST];
  UNROLL
  for (int k = 0; k < size; ++k) value[k] = LOAD(x + (first + k) * C + c);
  for (int m = 0; m < kept; ++m) {
    const REAL *matrix = D + entry + m * size;
    T sum = (T){0};
    UNROLL
    for (int k = 0; k < size; ++k) sum += matrix[k] * value[k];
    STORE(out + plan->places[row + m] * stride + c, sum);
  }
}

/* gx[k] += sum over m of D[m, k] g[m] */
INLINE void NAME(turn_back, KIND)(const Turns *plan, int row, int entry, int first, int kept,
                                  const int size, const REAL *D, const REAL *g, REAL *gx, int c) {
  const int64_t C = plan->channels, stride = (int64_t)plan->ends * C;
  T sum[WIDEST];
  UNROLL
  for (int k = 0; k < size; ++k) sum[k] = LOAD(gx + (first + k) * C + c);
  for (int m = 0; m < kept; ++m) {
    const REAL *matrix = D + entry + m * size;
    const T value = LOAD(g + plan->places[row + m] * stride + c);
    UNROLL
    for (int k = 0; k < size; ++k) sum[k] += matrix[k] * value;
  }
  UNROLL
  for (int k = 0; k < size; ++k) STORE(gx + (first + k) * C + c, sum[k]);
}

/* gD[m, k] += sum over channels of g[m] x[k] */
INLINE void NAME(turn_slope, KIND)(const Turns *plan, int row, int entry, int first, int kept,
                                   const int size, const REAL *g, const REAL *x, REAL *gD,
                                   int begin, int end, int step) {
  const int64_t C = plan->channels, stride = (int64_t)plan->ends * C;
  for (int m = 0; m < kept; ++m) {
    const REAL *slope = g + plan->places[row + m] * stride;
    T sum[WIDEST];
    UNROLL
    for (int k = 0; k < size; ++k) sum[k] = (T){0};
    for (int c = begin; c < end; c += step) {
      const T value = LOAD(slope + c);
      UNROLL
      for (int k = 0; k < size; ++k) sum[k] += value * LOAD(x + (first + k) * C + c);
    }
    UNROLL
    for (int k = 0; k < size; ++k) gD[entry + m * size + k] += SUM(sum[k]);
  }
}

#undef LOAD
#undef STORE
#undef SUM
