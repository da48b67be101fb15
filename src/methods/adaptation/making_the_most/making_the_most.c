/* Making the most of your model. Yoshida 2024, arXiv 2408.16241 (with arXiv 2008.07027, 2112.08653,
 * 2311.08817). Four ways to get more from a pretrained transformer: windows that hand a summary to
 * the next (recurrence), cached states improved by the gradient of text already seen (hidden-state
 * optimisation), the most probable output given an attribute (conditional beam search), and all
 * tokens at once, refined in rounds (mask-predict).
 *
 * No official code was found; where the sources are silent the functions are this project's
 * reading. What is computed with gradients, or inside a decoder's graph, is a graph function;
 * searches over candidates are on the host, in double. */
#include "methods/method.h"
#include "ballast/solve.h"

/* --- recurrence ------------------------------------------------------------------------------- */

#define MTM_RECURRENT_STATE(IN, OPT, OUT)                                                          \
    IN(hidden, "f32[L,D]", "grad, rows > 0", "hidden states of a window")                          \
    IN(w1, "f32[H,D]", "grad", "first layer")                                                      \
    IN(b1, "f32[H]", "grad", "its biases")                                                         \
    IN(w2, "f32[E,H]", "grad", "second layer")                                                     \
    IN(b2, "f32[E]", "grad", "its biases")                                                         \
    OPT(activation, "relu", "relu|tanh", "between the two")                                        \
    OUT(z, "f32[E]", "w2 f(w1 mean of hidden + b1) + b2")

BL_CONTRACT(mtm_recurrent_state, MTM_RECURRENT_STATE, "the summary that a window hands on")
{
    bl_tensor h = bl_add(bl_matmul(f->w1, bl_mean(f->hidden, 0)), f->b1);
    h = bl_is(f->activation, "relu") ? bl_relu(h) : bl_tanh(h);
    f->z = bl_add(bl_matmul(f->w2, h), f->b2);
}

/* --- attention to a window and what went before ----------------------------------------------- */

/* [N,heads*d] -> [heads,N,d] */
static bl_tensor split_heads(bl_tensor x, int64_t heads)
{
    int64_t rows = bl_dim(x, 0), width = bl_dim(x, 1) / heads;
    return bl_transpose(bl_reshape(x, BL_SHAPE(rows, heads, width)), 1, 0, 2);
}

typedef struct projections {
    bl_tensor q, k, v; /* [A,D] */
    bl_tensor o;       /* [D,A] */
} projections;

/* x[K,D] attends to all of the past [H,S,d] and, causally, to itself; [K,D]. */
static bl_tensor attend(bl_graph *graph, bl_tensor x, bl_tensor past_k, bl_tensor past_v,
                        projections w)
{
    int64_t K = bl_dim(x, 0), A = bl_dim(w.q, 0), H = bl_dim(past_k, 0), S = bl_dim(past_k, 1);
    bl_tensor q = split_heads(bl_dot(x, w.q, false, true), H);
    bl_tensor own_k = split_heads(bl_dot(x, w.k, false, true), H);
    bl_tensor own_v = split_heads(bl_dot(x, w.v, false, true), H);
    bl_tensor k = bl_concat((bl_tensor[]){past_k, own_k}, 2, 1);
    bl_tensor v = bl_concat((bl_tensor[]){past_v, own_v}, 2, 1);
    bl_tensor row = bl_iota(graph, BL_I32, BL_SHAPE(K, S + K), 0);
    bl_tensor column = bl_iota(graph, BL_I32, BL_SHAPE(K, S + K), 1);
    bl_tensor seen = bl_le(column, bl_add(row, (double)S));
    bl_tensor heads = bl_transpose(bl_attention(q, k, v, seen), 1, 0, 2);
    return bl_dot(bl_reshape(heads, BL_SHAPE(K, A)), w.o, false, true);
}

#define MTM_WINDOW_ATTENTION(IN, OPT, OUT)                                                         \
    IN(x, "f32[K,D]", "grad, rows > 0", "states of a window")                                      \
    IN(z, "f32[R,D]", "grad", "summaries of earlier ones")                                         \
    IN(wq, "f32[A,D]", "grad", "queries")                                                          \
    IN(wk, "f32[A,D]", "grad", "keys")                                                             \
    IN(wv, "f32[A,D]", "grad", "values")                                                           \
    IN(wo, "f32[D,A]", "grad", "output")                                                           \
    OPT(heads, 1, ">= 1", "divides A; a head owns A / heads rows")                                 \
    OUT(y, "f32[K,D]", "attention to all of z and, causally, to x")

BL_CONTRACT(mtm_window_attention, MTM_WINDOW_ATTENTION, "attention of a window and its summaries")
{
    int64_t width = bl_dim(f->wq, 0);
    if (width < 1 || width % f->heads != 0) {
        bl_poison(graph, "option heads is %lld, expected a divisor of %lld, the rows of wq",
                  (long long)f->heads, (long long)width);
        return;
    }
    bl_tensor k = split_heads(bl_dot(f->z, f->wk, false, true), f->heads);
    bl_tensor v = split_heads(bl_dot(f->z, f->wv, false, true), f->heads);
    f->y = attend(graph, f->x, k, v, (projections){f->wq, f->wk, f->wv, f->wo});
}

/* --- hidden-state optimisation ---------------------------------------------------------------- */

#define MTM_HSO_LOSS(IN, OPT, OUT)                                                                 \
    IN(x, "f32[K,D]", "grad, rows > 0", "states of a block")                                       \
    IN(past_k, "f32[H,S,d]", "grad", "cached keys")                                                \
    IN(past_v, "f32[H,S,d]", "grad", "cached values")                                              \
    IN(wq, "f32[A,D]", "", "queries; A is H d")                                                    \
    IN(wk, "f32[A,D]", "", "keys")                                                                 \
    IN(wv, "f32[A,D]", "", "values")                                                               \
    IN(wo, "f32[D,A]", "", "output")                                                               \
    IN(embedding, "f32[V,D]", "", "of the words")                                                  \
    IN(targets, "i32[K]", "0 <= . < V", "next words")                                              \
    OUT(loss, "f32[]", "mean cross-entropy of (x + attention) embedding^T")

BL_CONTRACT(mtm_hso_loss, MTM_HSO_LOSS, "loss of a block, given cached keys and values")
{
    int64_t heads = bl_dim(f->past_k, 0), size = bl_dim(f->past_k, 2);
    if (heads < 1 || size < 1 || bl_dim(f->wq, 0) != heads * size) {
        bl_poison(graph, "wq has %lld rows, expected %lld heads of %lld, at least one each",
                  (long long)bl_dim(f->wq, 0), (long long)heads, (long long)size);
        return;
    }
    projections w = {f->wq, f->wk, f->wv, f->wo};
    bl_tensor h = bl_add(f->x, attend(graph, f->x, f->past_k, f->past_v, w));
    f->loss = bl_cross_entropy(bl_dot(h, f->embedding, false, true), f->targets);
}

#define MTM_HSO_ADAM(IN, OPT, OUT)                                                                 \
    IN(state, "f32[S,F]", "", "cached states")                                                     \
    IN(grad, "f32[S,F]", "", "their gradient")                                                     \
    IN(m, "f32[S,F]", "", "first moments, which travel with a state")                              \
    IN(v, "f32[S,F]", "", "second moments")                                                        \
    IN(age, "i32[S]", ">= 0", "updates that a state has had")                                      \
    OPT(lr, 0.003, "(0,inf)", "learning rate")                                                     \
    OPT(beta1, 0.9, "[0,1)", "of the first moment")                                                \
    OPT(beta2, 0.999, "[0,1)", "of the second moment")                                             \
    OPT(eps, 1e-8, "[0,inf)", "added to the root")                                                 \
    OUT(state, "f32[S,F]", "updated states")                                                       \
    OUT(m, "f32[S,F]", "updated first moments")                                                    \
    OUT(v, "f32[S,F]", "updated second moments")                                                   \
    OUT(age, "i32[S]", "age + 1")

BL_CONTRACT_APART(mtm_hso_adam, MTM_HSO_ADAM, "a step of Adam in which each state has its own age")
{
    f->out_age = bl_add(f->age, 1);
    f->out_m = f->m, f->out_v = f->v;
    bl_tensor direction = bl_adam(f->grad, bl_expand(f->out_age, 1), f->beta1, f->beta2, f->eps,
                                  &f->out_m, &f->out_v);
    f->out_state = bl_sub(f->state, bl_mul(f->lr, direction));
}

/* --- conditional beam search ------------------------------------------------------------------ */

/* log of the sum of e^logits. */
static double log_sum(const float *logits, int64_t count)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < count; i++)
        largest = fmax(largest, (double)logits[i]);
    for (int64_t i = 0; i < count; i++)
        sum += exp((double)logits[i] - largest);
    return largest + log(sum);
}

static bl_status check_eos(int64_t eos, int64_t words)
{
    if (eos < 0 || eos >= words)
        return bl_fail(BL_INVALID, "option eos is %lld, expected 0 <= . < %lld, the words",
                       (long long)eos, (long long)words);
    return BL_OK;
}

#define MTM_CONDITIONAL_BEAM_STEP(IN, OPT, OUT)                                                    \
    IN(beam_logp, "f32[K]", "rows > 0", "log-probability of each prefix")                          \
    IN(next_logits, "f32[K,V]", "", "of the next word")                                            \
    IN(attribute_logp, "f32[K,V]", "finite",                                                       \
       "log P(attribute | prefix and word), fresh in every step")                                  \
    IN(finished, "i32[K]", "in {0,1}", "1: the prefix has ended")                                  \
    OPT(width, BL_REQUIRED_INTEGER, ">= 1", "prefixes to keep, at most K V")                       \
    OPT(alpha, 1.0, "[0,inf)", "weight of the attribute")                                          \
    OPT(eos, BL_REQUIRED_INTEGER, ">= 0", "the word that ends a prefix")                           \
    OUT(parent, "i32[width]", "prefix continued, best first")                                      \
    OUT(token, "i32[width]", "by this word")                                                       \
    OUT(logp, "f32[width]", "log-probability, without the attribute")                              \
    OUT(score, "f32[width]", "logp + alpha attribute_logp")                                        \
    OUT(finished, "i32[width]", "1: the word is eos")

typedef struct candidates {
    double *logp, *key; /* [K V]; the key is -score, or NaN where there is none */
    int64_t *order;
} candidates;

struct mtm_conditional_beam_step;
static int64_t score_candidates(const struct mtm_conditional_beam_step *f, candidates *c);
static void keep_best(struct mtm_conditional_beam_step *f, const candidates *c);

BL_HOST_APART(mtm_conditional_beam_step, MTM_CONDITIONAL_BEAM_STEP,
              "a step of beam search for the most probable text given an attribute")
{
    int64_t words = f->next_logits.type.shape.dim[1], all = bl_array_count(&f->next_logits);
    BL_TRY(check_eos(f->eos, words));
    if (f->width > all)
        return bl_fail(BL_INVALID, "option width is %lld, expected at most %lld, prefixes by words",
                       (long long)f->width, (long long)all);
    size_t bytes = (size_t)all * (2 * sizeof(double) + sizeof(int64_t));
    double *room = bl_alloc(bytes);
    if (!room)
        return bl_no_memory(bytes);
    candidates c = {.logp = room, .key = room + all, .order = (int64_t *)(room + 2 * all)};
    int64_t finite = score_candidates(f, &c);
    bl_status status = BL_OK;
    if (finite < f->width)
        status = bl_fail(BL_INVALID, "only %lld candidates are finite, expected %lld, the width",
                         (long long)finite, (long long)f->width);
    if (status == BL_OK)
        status = bl_ascending_order(c.key, all, c.order);
    if (status == BL_OK)
        keep_best(f, &c);
    bl_release(room);
    return status;
}

/* Fills logp and key; a finished prefix goes on with eos only, at no cost. */
static int64_t score_candidates(const struct mtm_conditional_beam_step *f, candidates *c)
{
    int64_t beams = f->next_logits.type.shape.dim[0], words = f->next_logits.type.shape.dim[1];
    int64_t finite = 0;
    for (int64_t k = 0; k < beams; k++) {
        const float *logits = bl_f32(&f->next_logits) + k * words;
        bool finished = bl_i32(&f->finished)[k];
        double prefix = (double)bl_f32(&f->beam_logp)[k];
        double normaliser = finished ? 0 : log_sum(logits, words);
        for (int64_t v = 0; v < words; v++) {
            int64_t i = k * words + v;
            c->logp[i] = finished ? prefix : prefix + ((double)logits[v] - normaliser);
            c->key[i] = -(c->logp[i] + f->alpha * (double)bl_f32(&f->attribute_logp)[i]);
            if ((finished && v != f->eos) || !isfinite(c->key[i]))
                c->key[i] = (double)NAN;
            finite += !isnan(c->key[i]);
        }
    }
    return finite;
}

static void keep_best(struct mtm_conditional_beam_step *f, const candidates *c)
{
    int64_t words = f->next_logits.type.shape.dim[1];
    for (int64_t n = 0; n < f->width; n++) {
        int64_t i = c->order[n];
        bl_i32(&f->out_parent)[n] = (int32_t)(i / words);
        bl_i32(&f->out_token)[n] = (int32_t)(i % words);
        bl_f32(&f->out_logp)[n] = (float)c->logp[i];
        bl_f32(&f->out_score)[n] = (float)-c->key[i];
        bl_i32(&f->out_finished)[n] = i % words == f->eos;
    }
}

/* --- exact modes ------------------------------------------------------------------------------ */

#define MTM_MARKOV_MODES(IN, OPT, OUT)                                                             \
    IN(first_logits, "f32[V]", "rows > 0", "of the first word")                                    \
    IN(next_logits, "f32[V,V]", "", "of the word after each")                                      \
    OPT(max_len, BL_REQUIRED_INTEGER, ">= 1", "longest text, without eos")                         \
    OPT(eos, BL_REQUIRED_INTEGER, ">= 0", "the word that ends a text")                             \
    OUT(logp, "f32[?]", "of the best text of each length 0 .. max_len")                            \
    OUT(sequence, "i32[?,max_len]", "that text, filled up with -1")                                \
    OUT(mode_length, "i32[]", "length of the best of all, ties to the shortest")

typedef struct chain {
    const float *first, *next;
    int64_t words, eos;
    double *normaliser; /* of each row of next */
    double *best;       /* [length,words]: of texts of length + 1 words that end with a word */
    int32_t *from;      /* the word before it */
} chain;

static double transition(const chain *c, int64_t word, int64_t after)
{
    return (double)c->next[after * c->words + word] - c->normaliser[after];
}

/* best and from for texts of n + 1 words; of equal ones the lower word before. */
static void extend(chain *c, int64_t n)
{
    double *best = c->best + n * c->words;
    double normaliser = n == 0 ? log_sum(c->first, c->words) : 0;
    for (int64_t word = 0; word < c->words; word++) {
        int64_t before = -1;
        best[word] = n == 0 ? (double)c->first[word] - normaliser : -INFINITY;
        for (int64_t p = 0; n > 0 && p < c->words; p++) {
            double logp = best[p - c->words] + transition(c, word, p);
            if (p != c->eos && (before < 0 || logp > best[word])) {
                best[word] = logp;
                before = p;
            }
        }
        c->from[n * c->words + word] = (int32_t)before;
    }
}

/* The best text of n words and then eos into text[n]; its log-probability. */
static double best_text(const chain *c, int64_t n, int32_t *text)
{
    if (n == 0)
        return (double)c->first[c->eos] - log_sum(c->first, c->words);
    const double *best = c->best + (n - 1) * c->words;
    double most = -INFINITY;
    int64_t last = -1;
    for (int64_t word = 0; word < c->words; word++) {
        double logp = best[word] + transition(c, c->eos, word);
        if (word != c->eos && (last < 0 || logp > most)) {
            most = logp;
            last = word;
        }
    }
    for (int64_t i = n - 1; i >= 0 && last >= 0; i--) {
        text[i] = (int32_t)last;
        last = c->from[i * c->words + last];
    }
    return most;
}

struct mtm_markov_modes;
static void find_modes(struct mtm_markov_modes *f, chain *c);

BL_HOST(mtm_markov_modes, MTM_MARKOV_MODES, "the most probable text of each length, exactly")
{
    int64_t words = f->first_logits.type.shape.dim[0], longest = f->max_len;
    BL_TRY(check_eos(f->eos, words));
    BL_TRY(bl_array_new(BL_F32, BL_SHAPE(longest + 1), &f->logp));
    BL_TRY(bl_array_new(BL_I32, BL_SHAPE(longest + 1, longest), &f->sequence));
    size_t cells = (size_t)longest * (size_t)words;
    size_t bytes = ((size_t)words + cells) * sizeof(double) + cells * sizeof(int32_t);
    double *room = bl_alloc(bytes);
    if (!room)
        return bl_no_memory(bytes);
    chain c = {bl_f32(&f->first_logits),
               bl_f32(&f->next_logits),
               words,
               f->eos,
               room,
               room + words,
               (int32_t *)(room + words + cells)};
    find_modes(f, &c);
    bl_release(room);
    return BL_OK;
}

static void find_modes(struct mtm_markov_modes *f, chain *c)
{
    double most = -INFINITY;
    int64_t mode = 0;
    for (int64_t word = 0; word < c->words; word++)
        c->normaliser[word] = log_sum(c->next + word * c->words, c->words);
    for (int64_t n = 0; n <= f->max_len; n++) {
        int32_t *text = bl_i32(&f->sequence) + n * f->max_len;
        for (int64_t i = 0; i < f->max_len; i++)
            text[i] = -1;
        if (n > 0)
            extend(c, n - 1);
        double logp = best_text(c, n, text);
        bl_array_set(&f->logp, n, logp);
        if (logp > most) {
            most = logp;
            mode = n;
        }
    }
    bl_array_set(&f->mode_length, 0, (double)mode);
}

/* --- how little noise flips a mode ------------------------------------------------------------ */

#define MTM_CONTAMINATION(IN, OPT, OUT)                                                            \
    IN(clean, "f32[N]", ">= 0, finite, sum > 0", "a distribution, normalised here")                \
    IN(noise, "f32[N]", ">= 0, finite, sum > 0", "another one")                                    \
    IN(epsilon, "f32[]", "0 <= . <= 1", "share of the noise")                                      \
    OUT(mixed, "f32[N]", "(1 - epsilon) clean + epsilon noise")                                    \
    OUT(mode, "i32[]", "its largest entry, the first of equals")                                   \
    OUT(critical, "f32[]", "share above which the noise's mode beats the clean one")

static double sum_of(const bl_array *x)
{
    double sum = 0;
    for (int64_t i = 0; i < bl_array_count(x); i++)
        sum += (double)bl_f32(x)[i];
    return sum;
}

static int64_t largest_entry(const bl_array *x)
{
    int64_t best = 0;
    for (int64_t i = 1; i < bl_array_count(x); i++)
        if (bl_f32(x)[i] > bl_f32(x)[best])
            best = i;
    return best;
}

BL_HOST(mtm_contamination, MTM_CONTAMINATION, "a distribution with noise, and when its mode flips")
{
    double clean = sum_of(&f->clean), noise = sum_of(&f->noise);
    double epsilon = (double)bl_f32(&f->epsilon)[0], most = -1;
    int64_t i = largest_entry(&f->clean), j = largest_entry(&f->noise);
    if (i == j)
        return bl_fail(BL_INVALID, "clean and noise both have their mode at %lld, expected two",
                       (long long)i);
    const float *p = bl_f32(&f->clean), *q = bl_f32(&f->noise);
    for (int64_t n = 0; n < bl_array_count(&f->clean); n++) {
        double mixed = (1 - epsilon) * (double)p[n] / clean + epsilon * (double)q[n] / noise;
        bl_f32(&f->mixed)[n] = (float)mixed;
        if (mixed > most) {
            most = mixed;
            bl_array_set(&f->mode, 0, (double)n);
        }
    }
    double loss = ((double)p[i] - (double)p[j]) / clean,
           gain = ((double)q[j] - (double)q[i]) / noise;
    bl_array_set(&f->critical, 0, loss / (loss + gain));
    return BL_OK;
}

/* --- all tokens at once ----------------------------------------------------------------------- */

enum { NOT_COUNTED = -100 };

#define MTM_CMLM_LOSS(IN, OPT, OUT)                                                                \
    IN(logits, "f32[B,T,V]", "grad, rows > 0", "of every word")                                    \
    IN(targets, "i32[B,T]", "", "words; -100 where one was visible")                               \
    IN(length_logits, "f32[B,Lmax]", "grad", "of the length")                                      \
    IN(lengths, "i32[B]", "0 <= . < Lmax", "length")                                               \
    OPT(length_weight, 1.0, "[0,inf)", "weight of the length's term")                              \
    OUT(loss, "f32[]", "word + length_weight length")                                              \
    OUT(word, "f32[]", "mean cross-entropy of counted words; 0 if there is none")                  \
    OUT(length, "f32[]", "mean cross-entropy of lengths")

static bl_status check_targets(const bl_dictionary *in, BL_UNUSED_ const void *options)
{
    const bl_array *targets = bl_dictionary_find(in, "targets");
    int64_t words = bl_dictionary_find(in, "logits")->type.shape.dim[2];
    int64_t count = bl_array_count(targets), width = targets->type.shape.dim[1];
    for (int64_t i = 0; i < count; i++) {
        int32_t word = bl_i32(targets)[i];
        if (word != NOT_COUNTED && (word < 0 || word >= words))
            return bl_fail(BL_INVALID, "targets[%lld,%lld] is %d, expected 0 <= . < %lld or -100",
                           (long long)(i / width), (long long)(i % width), word, (long long)words);
    }
    return BL_OK;
}

BL_CONTRACT_CHECKED(mtm_cmlm_loss, MTM_CMLM_LOSS, "loss of a decoder that fills in masked words",
                    check_targets)
{
    bl_tensor counted = bl_ne(f->targets, (double)NOT_COUNTED);
    bl_tensor rows = bl_cross_entropy_rows(f->logits, bl_select(counted, f->targets, 0));
    bl_tensor number = bl_sum(bl_cast(counted, BL_F32));
    f->word = bl_div(bl_sum(bl_select(counted, rows, 0)), bl_max(number, 1));
    f->length = bl_cross_entropy(f->length_logits, f->lengths);
    f->loss = bl_add(f->word, bl_mul(f->length_weight, f->length));
}

#define MTM_MASK_PREDICT_STEP(IN, OPT, OUT)                                                        \
    IN(logits, "f32[B,T,V]", "", "of every word")                                                  \
    IN(tokens, "i32[B,T]", "", "words so far")                                                     \
    IN(confidence, "f32[B,T]", "", "their log-probabilities")                                      \
    IN(lengths, "i32[B]", "0 <= . <= T", "words of each text")                                     \
    IN(masked, "i32[B,T]", "in {0,1}", "1: to be filled in")                                       \
    IN(iteration, "i32[]", "0 <= . < iterations", "the round, from 0")                             \
    OPT(iterations, BL_REQUIRED_INTEGER, ">= 1", "rounds")                                         \
    OPT(mask_token, BL_REQUIRED_INTEGER, ">= 0", "the word that stands for none")                  \
    OUT(tokens, "i32[B,T]", "words, the least certain masked again")                               \
    OUT(confidence, "f32[B,T]", "log-probabilities")                                               \
    OUT(masked, "i32[B,T]", "1: to be filled in by the next round")

struct mtm_mask_predict_step;
static bl_tensor least_certain(bl_graph *graph, const struct mtm_mask_predict_step *f,
                               bl_tensor confidence);

BL_CONTRACT_APART(mtm_mask_predict_step, MTM_MASK_PREDICT_STEP,
                  "a round of filling in, and of masking what is least certain")
{
    bl_shape shape = bl_type_of(f->logits).shape;
    if (f->mask_token >= shape.dim[2] || shape.dim[2] < 2) {
        bl_poison(graph, "option mask_token is %lld, expected one of %lld words, at least two",
                  (long long)f->mask_token, (long long)shape.dim[2]);
        return;
    }
    bl_tensor no_word = bl_eq(bl_iota(graph, BL_I32, shape, 2), (double)f->mask_token);
    bl_tensor word = bl_argmax(bl_select(no_word, -INFINITY, f->logits), 2);
    bl_tensor logp = bl_take_along(bl_log_softmax(f->logits, -1), bl_expand(word, 2), 2);
    bl_tensor fill = bl_ne(f->masked, 0);
    f->out_confidence = bl_select(fill, bl_squeeze(logp, 2), f->confidence);
    bl_tensor again = least_certain(graph, f, f->out_confidence);
    f->out_tokens = bl_select(again, (double)f->mask_token, bl_select(fill, word, f->tokens));
    f->out_masked = bl_cast(again, BL_I32);
}

/* True for the floor(length (iterations - 1 - iteration) / iterations) words of lowest confidence,
 * ties lowest index first: their places in the order of confidence come first. */
static bl_tensor least_certain(bl_graph *graph, const struct mtm_mask_predict_step *f,
                               bl_tensor confidence)
{
    bl_tensor rounds = bl_sub((double)(f->iterations - 1), f->iteration);
    bl_tensor number = bl_div(bl_mul(f->lengths, rounds), (double)f->iterations);
    bl_tensor place = bl_iota(graph, BL_I32, bl_type_of(f->tokens).shape, 1);
    bl_tensor within = bl_lt(place, bl_expand(f->lengths, 1));
    bl_tensor order = bl_argsort(bl_select(within, confidence, INFINITY), 1, false);
    bl_tensor rank = bl_argsort(order, 1, false);
    return bl_and(within, bl_lt(rank, bl_expand(number, 1)));
}

const bl_method bl_making_the_most = {
    .slug = "making_the_most",
    .family = "adaptation",
    .paper = "Yoshida 2024, arXiv 2408.16241",
    .summary = "(no arm) recurrence, state optimisation, conditional search, mask-predict",
    .when = "A pretrained transformer should read longer texts, adapt while reading, or give the "
            "most probable output of a kind.",
    .functions = {&mtm_recurrent_state_contract, &mtm_window_attention_contract,
                  &mtm_hso_loss_contract, &mtm_hso_adam_contract,
                  &mtm_conditional_beam_step_contract, &mtm_markov_modes_contract,
                  &mtm_contamination_contract, &mtm_cmlm_loss_contract,
                  &mtm_mask_predict_step_contract},
    .example = "ballast show mtm_hso_loss",
};
