/* Bodies of the convolution for T channels at once; included by kernels.c for each T. */
#ifndef PLAN
#define PLAN
typedef struct {
  int32_t start;   /* first component of x */
  int32_t inputs;  /* 2 l1 + 1 */
  int32_t first;   /* first component of the result */
  int32_t stride;  /* from one m3 to the next */
  int32_t outputs; /* 2 l3 + 1 */
  int32_t entry;   /* first entry of M, stored (m3, m1) */
} Path;

typedef struct {
  const Path *paths;
  const int64_t *senders, *receivers, *pairs; /* of each edge; pairs: row of w */
  const int64_t *receiver_offsets;            /* edges of each receiver */
  const int64_t *sender_order, *sender_offsets;
  const int64_t *pair_edges; /* (2, pair_count), or null: each edge has its own row of w */
  int64_t pair_count;
  int32_t path_count, channels, components, results, entries; /* of x, of out, of M */
} Plan;

#define MOST 23 /* components of degree 11 */

/* Degrees up to 3 are unrolled by the compiler; others run the same code with loops. */
#define BY_DEGREE(CALL)                                              \
  switch (path->inputs * 32 + path->outputs) {                       \
    case 1 * 32 + 1: CALL(1, 1); break;                              \
    case 1 * 32 + 3: CALL(1, 3); break;                              \
    case 1 * 32 + 5: CALL(1, 5); break;                              \
    case 1 * 32 + 7: CALL(1, 7); break;                              \
    case 3 * 32 + 1: CALL(3, 1); break;                              \
    case 3 * 32 + 3: CALL(3, 3); break;                              \
    case 3 * 32 + 5: CALL(3, 5); break;                              \
    case 3 * 32 + 7: CALL(3, 7); break;                              \
    case 5 * 32 + 1: CALL(5, 1); break;                              \
    case 5 * 32 + 3: CALL(5, 3); break;                              \
    case 5 * 32 + 5: CALL(5, 5); break;                              \
    case 5 * 32 + 7: CALL(5, 7); break;                              \
    case 7 * 32 + 1: CALL(7, 1); break;                              \
    case 7 * 32 + 3: CALL(7, 3); break;                              \
    case 7 * 32 + 5: CALL(7, 5); break;                              \
    case 7 * 32 + 7: CALL(7, 7); break;                              \
    default: CALL(path->inputs, path->outputs);                      \
  }
#endif

#define LOAD NAME(load, KIND)
#define STORE NAME(store, KIND)
#define SUM NAME(sum, KIND)

INLINE void NAME(out_path, KIND)(const Plan *plan, const Path *path, int p, const int inputs,
                                 const int outputs, const REAL *M, const REAL *w, const REAL *x,
                                 REAL *out, int64_t i, int c) {
  const int64_t C = plan->channels;
  T sum[MOST];
  for (int m3 = 0; m3 < outputs; ++m3) sum[m3] = (T){0};
  for (int64_t e = plan->receiver_offsets[i]; e < plan->receiver_offsets[i + 1]; ++e) {
    const REAL *matrix = M + e * plan->entries + path->entry;
    const REAL *sent = x + (plan->senders[e] * plan->components + path->start) * C + c;
    const T weight = LOAD(w + (plan->pairs[e] * plan->path_count + p) * C + c);
    for (int m1 = 0; m1 < inputs; ++m1) {
      const T value = weight * LOAD(sent + m1 * C);
      for (int m3 = 0; m3 < outputs; ++m3) sum[m3] += matrix[m3 * inputs + m1] * value;
    }
  }
  REAL *row = out + (i * plan->results + path->first) * C + c;
  for (int m3 = 0; m3 < outputs; ++m3) STORE(row + m3 * path->stride * C, sum[m3]);
}

INLINE void NAME(out, KIND)(const Plan *plan, const REAL *M, const REAL *w, const REAL *x,
                            REAL *out, int64_t i, int c) {
  for (int p = 0; p < plan->path_count; ++p) {
    const Path *path = plan->paths + p;
#define CALL(a, b) NAME(out_path, KIND)(plan, path, p, a, b, M, w, x, out, i, c)
    BY_DEGREE(CALL)
#undef CALL
  }
}

INLINE void NAME(sender_path, KIND)(const Plan *plan, const Path *path, int p, const int inputs,
                                    const int outputs, const REAL *g, const REAL *M,
                                    const REAL *w, REAL *gx, int64_t s, int c) {
  const int64_t C = plan->channels;
  T sum[MOST];
  for (int m1 = 0; m1 < inputs; ++m1) sum[m1] = (T){0};
  for (int64_t j = plan->sender_offsets[s]; j < plan->sender_offsets[s + 1]; ++j) {
    const int64_t e = plan->sender_order[j];
    const REAL *matrix = M + e * plan->entries + path->entry;
    const REAL *slope = g + (plan->receivers[e] * plan->results + path->first) * C + c;
    const T weight = LOAD(w + (plan->pairs[e] * plan->path_count + p) * C + c);
    for (int m3 = 0; m3 < outputs; ++m3) {
      const T value = weight * LOAD(slope + m3 * path->stride * C);
      for (int m1 = 0; m1 < inputs; ++m1) sum[m1] += matrix[m3 * inputs + m1] * value;
    }
  }
  REAL *row = gx + (s * plan->components + path->start) * C + c;
  for (int m1 = 0; m1 < inputs; ++m1) STORE(row + m1 * C, LOAD(row + m1 * C) + sum[m1]);
}

INLINE void NAME(sender, KIND)(const Plan *plan, const REAL *g, const REAL *M, const REAL *w,
                               REAL *gx, int64_t s, int c) {
  for (int m = 0; m < plan->components; ++m)
    STORE(gx + (s * plan->components + m) * plan->channels + c, (T){0});
  for (int p = 0; p < plan->path_count; ++p) {
    const Path *path = plan->paths + p;
#define CALL(a, b) NAME(sender_path, KIND)(plan, path, p, a, b, g, M, w, gx, s, c)
    BY_DEGREE(CALL)
#undef CALL
  }
}

INLINE T NAME(radial_path, KIND)(const Plan *plan, const Path *path, const int inputs,
                                 const int outputs, const REAL *g, const REAL *M, const REAL *x,
                                 int64_t e, int c) {
  const int64_t C = plan->channels;
  const REAL *matrix = M + e * plan->entries + path->entry;
  const REAL *sent = x + (plan->senders[e] * plan->components + path->start) * C + c;
  const REAL *slope = g + (plan->receivers[e] * plan->results + path->first) * C + c;
  T value[MOST], sum = (T){0};
  for (int m1 = 0; m1 < inputs; ++m1) value[m1] = LOAD(sent + m1 * C);
  for (int m3 = 0; m3 < outputs; ++m3) {
    T coupled = matrix[m3 * inputs] * value[0];
    for (int m1 = 1; m1 < inputs; ++m1) coupled += matrix[m3 * inputs + m1] * value[m1];
    sum += coupled * LOAD(slope + m3 * path->stride * C);
  }
  return sum;
}

INLINE void NAME(radial, KIND)(const Plan *plan, const REAL *g, const REAL *M, const REAL *x,
                               REAL *gw, int64_t q, int c) {
  for (int p = 0; p < plan->path_count; ++p) {
    const Path *path = plan->paths + p;
    T sum = (T){0};
    for (int side = 0; side < (plan->pair_edges ? 2 : 1); ++side) {
      const int64_t e = plan->pair_edges ? plan->pair_edges[side * plan->pair_count + q] : q;
#define CALL(a, b) sum += NAME(radial_path, KIND)(plan, path, a, b, g, M, x, e, c)
      BY_DEGREE(CALL)
#undef CALL
    }
    STORE(gw + (q * plan->path_count + p) * plan->channels + c, sum);
  }
}

INLINE void NAME(angular_path, KIND)(const Plan *plan, const Path *path, int p, const int inputs,
                                     const int outputs, const REAL *g, const REAL *w,
                                     const REAL *x, REAL *gM, int64_t e, int begin, int end,
                                     int step) {
  const int64_t C = plan->channels;
  const REAL *sent = x + (plan->senders[e] * plan->components + path->start) * C;
  const REAL *slope = g + (plan->receivers[e] * plan->results + path->first) * C;
  const REAL *weights = w + (plan->pairs[e] * plan->path_count + p) * C;
  REAL *matrix = gM + e * plan->entries + path->entry;
  for (int m3 = 0; m3 < outputs; ++m3) {
    T sum[MOST];
    for (int m1 = 0; m1 < inputs; ++m1) sum[m1] = (T){0};
    for (int c = begin; c < end; c += step) {
      const T value = LOAD(weights + c) * LOAD(slope + m3 * path->stride * C + c);
      for (int m1 = 0; m1 < inputs; ++m1) sum[m1] += value * LOAD(sent + m1 * C + c);
    }
    for (int m1 = 0; m1 < inputs; ++m1) matrix[m3 * inputs + m1] += SUM(sum[m1]);
  }
}

INLINE void NAME(angular, KIND)(const Plan *plan, const REAL *g, const REAL *w, const REAL *x,
                                REAL *gM, int64_t e, int begin, int end, int step) {
  if (begin >= end) return;
  for (int p = 0; p < plan->path_count; ++p) {
    const Path *path = plan->paths + p;
#define CALL(a, b) NAME(angular_path, KIND)(plan, path, p, a, b, g, w, x, gM, e, begin, end, step)
    BY_DEGREE(CALL)
#undef CALL
  }
}

#undef LOAD
#undef STORE
#undef SUM
