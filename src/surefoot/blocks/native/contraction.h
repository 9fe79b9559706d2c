/* Bodies of the contraction for T channels at once; included by kernels.c for each T.
 *
 * Products of components form a tree: node n is its parent's product times one more component.
 * A node comes after its parent. Terms couple nodes to results:
 *     out[o] = sum over terms t with result o of K[species, t] value[node t]                   */
#ifndef TREE
#define TREE
typedef struct {
  const int32_t *parents;    /* of each node; -1 where the product is the component itself */
  const int32_t *components; /* the component each node adds */
  const int32_t *offsets;    /* (nodes + 1) terms of each node */
  const int32_t *results;    /* of each term */
  const int64_t *species;    /* of each row */
  int64_t rows;
  int32_t nodes, terms, inputs, outputs, channels;
} Tree;
#endif

#define LOAD NAME(load, KIND)
#define STORE NAME(store, KIND)
#define ADD(to, value)              \
  do {                              \
    REAL *place = (to);             \
    STORE(place, LOAD(place) + (value)); \
  } while (0)

INLINE void NAME(value, KIND)(const Tree *tree, const REAL *A, const REAL *K, REAL *out,
                              void *space, int64_t i, int c) {
  const int64_t C = tree->channels;
  T *value = space, *sum = value + tree->nodes;
  const REAL *a = A + i * tree->inputs * C + c;
  const REAL *k = K + tree->species[i] * tree->terms * C + c;
  for (int o = 0; o < tree->outputs; ++o) sum[o] = (T){0};
  for (int n = 0; n < tree->nodes; ++n) {
    T product = LOAD(a + tree->components[n] * C);
    if (tree->parents[n] >= 0) product *= value[tree->parents[n]];
    value[n] = product;
    for (int t = tree->offsets[n]; t < tree->offsets[n + 1]; ++t)
      sum[tree->results[t]] += LOAD(k + t * C) * product;
  }
  for (int o = 0; o < tree->outputs; ++o) STORE(out + (i * tree->outputs + o) * C + c, sum[o]);
}

INLINE void NAME(gradient, KIND)(const Tree *tree, const REAL *A, const REAL *K, const REAL *g,
                                 REAL *gA, REAL *gK, void *space, int64_t i, int c) {
  const int64_t C = tree->channels;
  T *value = space, *slope = value + tree->nodes, *seen = slope + tree->nodes;
  T *sum = seen + tree->outputs, *local = sum + tree->inputs;
  const REAL *a = A + i * tree->inputs * C + c;
  const int64_t table = tree->species[i] * tree->terms * C + c;
  for (int o = 0; o < tree->outputs; ++o) seen[o] = LOAD(g + (i * tree->outputs + o) * C + c);
  for (int m = 0; m < tree->inputs; ++m) {
    local[m] = LOAD(a + m * C);
    sum[m] = (T){0};
  }
  for (int n = 0; n < tree->nodes; ++n) {
    T product = local[tree->components[n]], total = (T){0};
    if (tree->parents[n] >= 0) product *= value[tree->parents[n]];
    value[n] = product;
    for (int t = tree->offsets[n]; t < tree->offsets[n + 1]; ++t) {
      if (gA) total += LOAD(K + table + t * C) * seen[tree->results[t]];
      if (gK) ADD(gK + table + t * C, product * seen[tree->results[t]]);
    }
    slope[n] = total;
  }
  if (!gA) return;
  for (int n = tree->nodes - 1; n >= 0; --n) {
    const int m = tree->components[n], parent = tree->parents[n];
    if (parent >= 0) {
      sum[m] += slope[n] * value[parent];
      slope[parent] += slope[n] * local[m];
    } else {
      sum[m] += slope[n];
    }
  }
  for (int m = 0; m < tree->inputs; ++m) STORE(gA + (i * tree->inputs + m) * C + c, sum[m]);
}

/* The derivative of result and gradients along dA: out, gA and gK hold those. */
INLINE void NAME(tangent, KIND)(const Tree *tree, const REAL *A, const REAL *K, const REAL *g,
                                const REAL *dA, REAL *out, REAL *gA, REAL *gK,
                                void *space, int64_t i, int c) {
  const int64_t C = tree->channels;
  T *value = space, *moved = value + tree->nodes, *slope = moved + tree->nodes;
  T *bent = slope + tree->nodes, *seen = bent + tree->nodes, *result = seen + tree->outputs;
  T *sum = result + tree->outputs, *local = sum + tree->inputs, *step = local + tree->inputs;
  const int64_t table = tree->species[i] * tree->terms * C + c;
  for (int o = 0; o < tree->outputs; ++o) {
    seen[o] = LOAD(g + (i * tree->outputs + o) * C + c);
    result[o] = (T){0};
  }
  for (int m = 0; m < tree->inputs; ++m) {
    local[m] = LOAD(A + (i * tree->inputs + m) * C + c);
    step[m] = LOAD(dA + (i * tree->inputs + m) * C + c);
    sum[m] = (T){0};
  }
  for (int n = 0; n < tree->nodes; ++n) {
    const int parent = tree->parents[n];
    T product = local[tree->components[n]], change = step[tree->components[n]];
    if (parent >= 0) {
      change = change * value[parent] + product * moved[parent];
      product *= value[parent];
    }
    value[n] = product;
    moved[n] = change;
    T total = (T){0};
    for (int t = tree->offsets[n]; t < tree->offsets[n + 1]; ++t) {
      const int o = tree->results[t];
      const T weight = LOAD(K + table + t * C);
      total += weight * seen[o];
      result[o] += weight * change;
      ADD(gK + table + t * C, change * seen[o]);
    }
    slope[n] = total;
    bent[n] = (T){0};
  }
  for (int n = tree->nodes - 1; n >= 0; --n) {
    const int m = tree->components[n], parent = tree->parents[n];
    if (parent >= 0) {
      sum[m] += bent[n] * value[parent] + slope[n] * moved[parent];
      bent[parent] += bent[n] * local[m] + slope[n] * step[m];
      slope[parent] += slope[n] * local[m];
    } else {
      sum[m] += bent[n];
    }
  }
  for (int o = 0; o < tree->outputs; ++o)
    STORE(out + (i * tree->outputs + o) * C + c, result[o]);
  for (int m = 0; m < tree->inputs; ++m) STORE(gA + (i * tree->inputs + m) * C + c, sum[m]);
}

#undef LOAD
#undef STORE
#undef ADD
