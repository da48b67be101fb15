/* The generative methods of looking in and spreading out - multifaceted visualization, cross
 * initialization, DictAS, manifold entropy: what their specs refuse, and facts about values and
 * gradients at shapes and corners that the reference cases do not have. */
#include "calls.h"

/* --- multifaceted visualization --------------------------------------------------------------- */

static void two_facets_of_a_line_are_found(void **state)
{
    (void)state;
    call c = start("multifaceted_vis_pca", "{\"k\": 2}");
    F32(&c, "x", S(4, 2), 1, 5, 4, 5, 7, 5, 0, 5); /* one direction; the other has no variance */
    accept(&c, NULL);
    expect(&c, "scores", -2, 0, 1, 0, 4, 0, -3, 0);
    expect(&c, "variance", 10, 0);
    expect(&c, "components", 1, 0, 0, 1);
    finish(&c);
    c = start("multifaceted_vis_pca", "{\"k\": 1}"); /* wide; the largest entry is positive */
    F32(&c, "x", S(2, 3), 0, 0, 0, 3, -4, 0);
    accept(&c, NULL);
    expect(&c, "components", -0.6, 0.8, 0);
    expect(&c, "scores", 2.5, -2.5);
    expect(&c, "variance", 12.5);
    finish(&c);
}

static void equal_points_are_equal_neighbours(void **state)
{
    (void)state;
    call c = start("multifaceted_vis_tsne_affinity", "{\"perplexity\": 2}");
    F32(&c, "x", S(4, 1), 3, 3, 3, 3);
    accept(&c, NULL);
    for (int i = 0; i < 16; i++)
        near(result(&c, "p", i), i % 5 ? 1.0 / 12 : 0);
    double x[30], sum = 0;
    for (int i = 0; i < 30; i++)
        x[i] = i * i * 1e3; /* neighbours at very different distances */
    give(&c, "x", BL_F32, S(30, 1), x);
    accept(&c, NULL);
    for (int i = 0; i < 30; i++)
        for (int j = 0; j < 30; j++) {
            sum += result(&c, "p", 30 * i + j);
            assert_true(result(&c, "p", 30 * i + j) == result(&c, "p", 30 * j + i));
        }
    near(sum, 1);
    x[3] = NAN;
    give(&c, "x", BL_F32, S(30, 1), x);
    accept(&c, NULL);
    assert_true(isnan(result(&c, "p", 1)));
    finish(&c);
}

static void a_map_of_two_points_is_always_right(void **state)
{
    (void)state;
    call c = start("multifaceted_vis_tsne_kl", NULL);
    F32(&c, "y", S(2, 2), 1, 2, -7, 80);
    F32(&c, "p", S(2, 2), 0, 0.5, 0.5, 0);
    accept(&c, "kl");
    expect(&c, "kl", 0);
    near(slope(&c, "y", 3), 0);
    F32(&c, "y", S(1, 2), 1, 2); /* a single point has no neighbours */
    F32(&c, "p", S(1, 1), 0);
    accept(&c, "kl");
    expect(&c, "kl", 0);
    F32(&c, "y", S(3, 2), 0, 0, 0, 0, 1, 0); /* two in one place: w = 1, 1/2, 1/2 */
    F32(&c, "p", S(3, 3), 0, 0, 0.25, 0, 0, 0.25, 0.25, 0.25, 0);
    accept(&c, "kl");
    near(result(&c, "kl", 0), log(2));
    all_finite(&c.gradient);
    finish(&c);
}

static void an_empty_cluster_keeps_its_place(void **state)
{
    (void)state;
    call c = start("multifaceted_vis_kmeans", "{\"iterations\": 1}");
    F32(&c, "y", S(3, 1), 0, 2, 10);
    F32(&c, "init", S(3, 1), 1, 1, 9);
    accept(&c, NULL);
    expect(&c, "centroids", 1, 1, 10);
    expect(&c, "assignment", 0, 0, 2); /* ties to the lower */
    c.options = "{\"iterations\": 0}";
    F32(&c, "init", S(2, 1), 6, 5);
    accept(&c, NULL);
    expect(&c, "centroids", 6, 5);
    expect(&c, "assignment", 1, 1, 0);
    c.options = "{\"iterations\": 50}";
    accept(&c, NULL);
    expect(&c, "centroids", 10, 1);
    F32(&c, "y", S(0, 1), 0);
    accept(&c, NULL);
    expect(&c, "centroids", 6, 5);
    F32(&c, "y", S(2, 1), NAN, 5); /* what is not a number goes to the first, and through */
    accept(&c, NULL);
    assert_true(isnan(result(&c, "centroids", 0)));
    near(result(&c, "centroids", 1), 5);
    finish(&c);
}

static void mean_images_are_of_the_nearest(void **state)
{
    (void)state;
    call c = start("multifaceted_vis_mean_images", "{\"m\": 2}");
    F32(&c, "images", S(4, 1, 2), 1, 10, 3, 30, 5, 50, 9, 90);
    F32(&c, "y", S(4, 2), 1, 0, 0, -1, 0, 0, 0, 1);
    F32(&c, "centroids", S(3, 2), 0, 0, 5, 5, 0, 0);
    I32(&c, "assignment", S(4), 0, 0, 0, 2);
    accept(&c, NULL);
    expect(&c, "index", 2, 0, -1, -1, 3, -1); /* 0 and 1 are equally far: the lower */
    expect(&c, "count", 2, 0, 1);
    expect(&c, "mean_image", 3, 30, 0, 0, 9, 90);
    F32(&c, "y", S(4, 2), 1, 0, NAN, -1, 0, 0, 0, 1); /* no distance is the largest */
    accept(&c, NULL);
    expect(&c, "index", 2, 0, -1, -1, 3, -1);
    c.options = "{\"m\": 3}";
    accept(&c, NULL);
    expect(&c, "index", 2, 0, 1, -1, -1, -1, 3, -1, -1);
    finish(&c);
}

static void a_step_changes_pixels_by_its_size_on_average(void **state)
{
    (void)state;
    call c = start("multifaceted_vis_step", "{\"step_size\": 2, \"margin\": 1}");
    double x[27] = {0}, grad[27];
    for (int i = 0; i < 27; i++)
        grad[i] = i;
    give(&c, "x", BL_F32, S(3, 3, 3), x);
    give(&c, "grad", BL_F32, S(3, 3, 3), grad);
    F32(&c, "mean", S(3), 100, 100, 250);
    accept(&c, NULL);
    near(result(&c, "x_out", 0), 0); /* a margin of 1 leaves the middle: 12, 13, 14 of 27 values */
    near(result(&c, "x_out", 12), 2 * 27 * 12.0 / 39);
    near(result(&c, "x_out", 14), 5); /* 255 - 250 */
    finish(&c);
}

static void crops_stay_within_the_image(void **state)
{
    (void)state;
    call c = start("multifaceted_vis_crop_offset", "{\"full\": 10, \"crop\": 7}");
    F32(&c, "normal", S(2), 0, -50);
    accept(&c, NULL);
    expect(&c, "offset", 1, 0);
    F32(&c, "normal", S(2), 50, 0.6); /* 1.5 + 0.9 * 0.6 = 2.04 */
    accept(&c, NULL);
    expect(&c, "offset", 3, 2);
    c.options = "{\"full\": 7, \"crop\": 7}";
    accept(&c, NULL);
    expect(&c, "offset", 0, 0);
    finish(&c);
}

static void halves_round_to_even_sizes(void **state)
{
    (void)state;
    call c = start("multifaceted_vis_zoom", "{\"scale\": 0.5}");
    F32(&c, "x", S(3, 5, 1), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14);
    accept(&c, NULL);
    expect(&c, "out", 0, 4, 10, 14); /* 1.5 gives 2 rows, 2.5 gives 2 columns */
    finish(&c);
}

static void a_constant_image_is_smooth(void **state)
{
    (void)state;
    call c = start("multifaceted_vis_tv_bregman", NULL);
    F32(&c, "image", S(2, 2, 1), 3, 3, 3, 3);
    c.options = "{\"max_iter\": 0}";
    accept(&c, NULL);
    expect(&c, "iterations", 0);
    expect(&c, "out", 3, 3, 3, 3);
    F32(&c, "image", S(3, 3, 1), 0, 0, 0, 0, 9, 0, 0, 0, 0);
    c.options = "{\"weight\": 0.01, \"max_iter\": 500, \"eps\": 0}";
    accept(&c, NULL);
    assert_true(result(&c, "out", 4) < 1.5);
    assert_true(result(&c, "iterations", 0) > 100);        /* until nothing changes at all */
    c.options = "{\"weight\": 1e6, \"isotropic\": false}"; /* the data outweigh everything */
    accept(&c, NULL);
    assert_true(result(&c, "out", 4) > 1);
    assert_true(result(&c, "iterations", 0) <= 100);
    finish(&c);
}

static void multifaceted_vis_refuses(void **state)
{
    (void)state;
    REFUSE("multifaceted_vis_tv_bregman", NULL, "image is 1 x 3, expected at least 2 x 2",
           F32(&c, "image", S(1, 3, 1), 0, 0, 0));
    REFUSE("multifaceted_vis_tv_bregman", "{\"weight\": 0}",
           "option weight is 0, expected (0,inf)");
    REFUSE("multifaceted_vis_step", "{\"step_size\": 1, \"margin\": 1}",
           "grad is 0 everywhere within a margin of 1, expected a direction",
           F32(&c, "x", S(2, 2, 1), 0, 0, 0, 0), F32(&c, "grad", S(2, 2, 1), 1, 2, 3, 4),
           F32(&c, "mean", S(1), 0));
    REFUSE("multifaceted_vis_step", "{\"margin\": 1}", "option step_size is required");
    REFUSE("multifaceted_vis_crop_offset", "{\"full\": 6, \"crop\": 7}",
           "option full is 6, expected >= crop");
    REFUSE("multifaceted_vis_tsne_affinity", "{\"perplexity\": 1}",
           "option perplexity is 1, expected > 1");
    REFUSE("multifaceted_vis_tsne_affinity", "{\"perplexity\": 2}",
           "option perplexity is 2, expected below N - 1 (2)", F32(&c, "x", S(3, 1), 0, 1, 2));
    REFUSE("multifaceted_vis_pca", "{\"k\": 3}",
           "option k is 3 and x has 2 rows, expected two rows and k at most 2",
           F32(&c, "x", S(2, 4), 0, 0, 0, 0, 1, 1, 1, 1));
    REFUSE("multifaceted_vis_mean_images", NULL, "assignment[0] is 1, expected 0 <= . < K (K is 1)",
           F32(&c, "images", S(1), 0), F32(&c, "y", S(1, 2), 0, 0),
           F32(&c, "centroids", S(1, 2), 0, 0), I32(&c, "assignment", S(1), 1));
    REFUSE("multifaceted_vis_kmeans", "{\"iterations\": 1}", "init must be f32[K,1], not f32[1,2]",
           F32(&c, "y", S(1, 1), 0), F32(&c, "init", S(1, 2), 0, 0));
    REFUSE("multifaceted_vis_zoom", "{\"scale\": 0.1}",
           "option scale is 0.1 and makes the image 0 x 0, expected 1 to 65536",
           F32(&c, "x", S(2, 2, 1), 0, 0, 0, 0));
    REFUSE("multifaceted_vis_schedule", "{\"n\": 0}", "option n is 0, expected >= 1");
}

/* --- cross initialization --------------------------------------------------------------------- */

static void short_names_fill_the_first_columns(void **state)
{
    (void)state;
    call c = start("cross_init_mean_name", NULL);
    F32(&c, "name_emb", S(3, 4, 1), 9, 1, 2, 9, 9, 5, 9, 9, 9, 9, 9, 9);
    I32(&c, "length", S(3), 4, 3, 2); /* the last name is empty */
    accept(&c, NULL);
    expect(&c, "mean", 3, 2);
    expect(&c, "count", 2, 1);
    c.options = "{\"columns\": 1}";
    accept(&c, NULL);
    expect(&c, "mean", 3);
    finish(&c);
}

/* An encoder of one layer, one head and width 2 whose linear maps are all 0, but for w2's bias. */
static void give_encoder(call *c, int layers)
{
    double zero[16] = {0}, one[4] = {1, 1, 1, 1};
    const char *vectors[] = {"bq", "bk", "bv", "bo", "ln1_b", "ln2_b"};
    const char *matrices[] = {"wq", "wk", "wv", "wo", "w1", "w2"};
    for (int i = 0; i < 6; i++) {
        give(c, vectors[i], BL_F32, S(layers, 2), zero);
        give(c, matrices[i], BL_F32, S(layers, 2, 2), zero);
    }
    give(c, "ln1_g", BL_F32, S(layers, 2), one);
    give(c, "ln2_g", BL_F32, S(layers, 2), one);
    give(c, "b1", BL_F32, S(layers, 2), zero);
    give(c, "b2", BL_F32, S(layers, 2), VALUES(0, 0, 0, 0));
    F32(c, "lnf_g", S(2), 1, 1);
    F32(c, "lnf_b", S(2), 0, 7);
    F32(c, "pos", S(4, 2), 0, 0, 10, 0, 0, 10, 0, 0);
}

static void the_start_is_the_encoders_output(void **state)
{
    (void)state;
    call c = start("cross_init_embedding", "{\"length\": 4, \"heads\": 1}");
    give_encoder(&c, 2);
    F32(&c, "columns", S(2, 2), -20, 3, 5, 6);
    F32(&c, "bos", S(2), 0, 0);
    F32(&c, "eos", S(2), 1, 1);
    F32(&c, "pad", S(2), NAN, NAN);
    accept(&c, NULL); /* x + pos = (-10, 3), (5, 16): both (-1, 1) when normalised */
    for (int i = 0; i < 4; i++)
        assert_true(fabs(result(&c, "init", i) - (i % 2 ? 8 : -1)) < 1e-4);
    finish(&c);
    c = start("cross_init_encode", "{\"heads\": 2}"); /* no layers at all: the last norm */
    give_encoder(&c, 0);
    F32(&c, "emb", S(1, 1, 2), 1, 1);
    accept(&c, NULL);
    expect(&c, "hidden", 0, 7);
    finish(&c);
}

static void what_comes_later_does_not_matter(void **state)
{
    (void)state;
    call c = start("cross_init_encode", "{\"heads\": 1, \"activation\": \"quick_gelu\"}");
    give_encoder(&c, 1);
    F32(&c, "wv", S(1, 2, 2), 1, 2, 3, 4);
    F32(&c, "wo", S(1, 2, 2), 1, 0, 0, -1);
    F32(&c, "w1", S(1, 2, 2), 1, 0, 0, -1);
    F32(&c, "w2", S(1, 2, 2), 1, 0.5, 0.25, -1);
    F32(&c, "emb", S(1, 2, 2), 1, 2, 3, 5);
    give_to(&c.cotangent, "hidden", (bl_type){BL_F32, S(1, 2, 2)}, VALUES(1, 2, 0, 0));
    accept(&c, NULL);
    double first = result(&c, "hidden", 0);
    near(slope(&c, "emb", 2), 0);
    near(slope(&c, "emb", 3), 0);
    F32(&c, "emb", S(1, 2, 2), 1, 2, -30, 50);
    accept(&c, NULL);
    near(result(&c, "hidden", 0), first);
    finish(&c);
}

static void the_penalty_has_a_slope_at_its_start(void **state)
{
    (void)state;
    call c = start("cross_init_reg", "{\"weight\": 6}");
    F32(&c, "v", S(3, 4), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    F32(&c, "v0", S(3, 4), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    accept(&c, "loss");
    near(result(&c, "loss", 0) * 1e6, 6 * 2);
    for (int i = 0; i < 12; i++) {
        near(slope(&c, "v", i), 6.0 / (3 * 2));
        near(slope(&c, "v0", i), 0);
    }
    c.options = "{\"weight\": 6, \"eps\": 0}"; /* now the distance has a corner there */
    accept(&c, "loss");
    near(slope(&c, "v", 5), 0);
    c.options = "{\"weight\": 6, \"power\": 2, \"eps\": 100}"; /* which eps does not move */
    accept(&c, "loss");
    expect(&c, "loss", 0);
    finish(&c);
}

static void a_gap_knows_small_vectors(void **state)
{
    (void)state;
    call c = start("cross_init_gap", NULL);
    F32(&c, "v_init", S(2, 2), 3e-30, 0, 0, -2);
    F32(&c, "v_learned", S(2, 2), 3e-30, 3e-30, 0, 4);
    accept(&c, NULL);
    near(result(&c, "ratio", 0), sqrt(2));
    near(result(&c, "cosine", 0), sqrt(0.5));
    near(result(&c, "cosine", 1), -1);
    near(result(&c, "distance", 1), 6);
    finish(&c);
}

static void a_token_may_be_restored_twice(void **state)
{
    (void)state;
    call c = start("cross_init_restore_rows", NULL);
    F32(&c, "table_new", S(3, 1), 1, 2, 3);
    F32(&c, "table_old", S(3, 1), -1, -2, -3);
    I32(&c, "ids", S(2), 2, 2);
    accept(&c, NULL);
    expect(&c, "table_out", -1, -2, 3);
    I32(&c, "ids", S(0), 0);
    accept(&c, NULL);
    expect(&c, "table_out", -1, -2, -3);
    finish(&c);
}

static void cross_init_refuses(void **state)
{
    (void)state;
    REFUSE("cross_init_mean_name", NULL,
           "length: the longest name has 1 tokens between begin and end, expected at least one for "
           "each column (2)",
           F32(&c, "name_emb", S(1, 4, 1), 0, 0, 0, 0), I32(&c, "length", S(1), 3));
    REFUSE("cross_init_mean_name", NULL, "length[0] is 5, expected 2 <= . <= L (L is 4)",
           F32(&c, "name_emb", S(1, 4, 1), 0, 0, 0, 0), I32(&c, "length", S(1), 5));
    REFUSE("cross_init_mean_name", NULL, "length[0] is 1, expected 2 <= . <= L (L is 4)",
           F32(&c, "name_emb", S(1, 4, 1), 0, 0, 0, 0), I32(&c, "length", S(1), 1));
    REFUSE("cross_init_encode", "{\"heads\": 1}",
           "emb has 5 tokens, expected at most the 4 rows of pos", give_encoder(&c, 1),
           F32(&c, "emb", S(1, 5, 2), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    REFUSE("cross_init_encode", "{\"heads\": 3}", "option heads is 3, expected a divisor of D (2)",
           give_encoder(&c, 1), F32(&c, "emb", S(1, 1, 2), 0, 0));
    REFUSE("cross_init_encode", "{\"heads\": 1, \"activation\": \"relu\"}",
           "option activation is \"relu\", expected one of gelu|quick_gelu");
    REFUSE("cross_init_embedding", "{\"heads\": 1, \"length\": 3}",
           "option length is 3, expected C + 2 (4) to the rows of pos (4)", give_encoder(&c, 1),
           F32(&c, "columns", S(2, 2), 0, 0, 0, 0), F32(&c, "bos", S(2), 0, 0),
           F32(&c, "eos", S(2), 0, 0), F32(&c, "pad", S(2), 0, 0));
    REFUSE("cross_init_reg", "{\"weight\": -1}", "option weight is -1, expected [0,inf)");
    REFUSE("cross_init_reg", "{\"power\": 3}", "option power is 3, expected in {1,2}");
    REFUSE("cross_init_reg", NULL, "v0 must be f32[1,2], not f32[1,3]", F32(&c, "v", S(1, 2), 0, 0),
           F32(&c, "v0", S(1, 3), 0, 0, 0));
    REFUSE("cross_init_loss", NULL, "eps_true must be f32[1,2], not f32[1,1]",
           F32(&c, "eps_pred", S(1, 2), 0, 0), F32(&c, "eps_true", S(1, 1), 0));
    REFUSE("cross_init_gap", NULL, "v_learned is all 0 in row 1, expected rows that are not",
           F32(&c, "v_init", S(2, 1), 1, 1), F32(&c, "v_learned", S(2, 1), 1, 0));
    REFUSE("cross_init_gap", NULL, "v_init is all 0 in row 0, expected rows that are not",
           F32(&c, "v_init", S(1, 2), 0, 0), F32(&c, "v_learned", S(1, 2), 1, 0));
    REFUSE("cross_init_restore_rows", NULL, "ids[1] is 2, expected 0 <= . < V (V is 2)",
           F32(&c, "table_new", S(2, 1), 1, 2), F32(&c, "table_old", S(2, 1), 1, 2),
           I32(&c, "ids", S(2), 0, 2));
}

/* --- DictAS ----------------------------------------------------------------------------------- */

static void a_dictionary_of_one_patch_gives_that_patch(void **state)
{
    (void)state;
    call c = start("dictas_lookup", NULL);
    F32(&c, "f_q", S(1, 2, 2), 1e4, 0, 0, -1e4);
    F32(&c, "f_k", S(1, 1, 2), 1, 1);
    F32(&c, "f_v", S(1, 1, 2), 3, 4);
    accept(&c, NULL);
    expect(&c, "retrieved", 3, 4, 3, 4);
    expect(&c, "attn", 1, 1);
    finish(&c);
}

static void the_edge_of_the_support_is_outside(void **state)
{
    (void)state;
    call c = start("dictas_sparsemax", NULL);
    F32(&c, "z", S(3, 3), 5, 4, 3, 1, 1, 0.5, -80, 80, -80); /* 1 + 2 (-1) = -1: not in */
    give_to(&c.cotangent, "p", (bl_type){BL_F32, S(3, 3)}, VALUES(1, 2, 3, 4, 8, 9, 1, 1, 1));
    accept(&c, NULL);
    expect(&c, "p", 1, 0, 0, 0.5, 0.5, 0, 0, 1, 0);
    expect(&c, "support", 1, 2, 1);
    const double expected[] = {0, 0, 0, -2, 2, 0, 0, 0, 0};
    for (int i = 0; i < 9; i++)
        near(slope(&c, "z", i), expected[i]);
    finish(&c);
}

static void neighbourhoods_count_what_lies_beyond(void **state)
{
    (void)state;
    call c = start("dictas_aggregate", "{\"size\": 2}"); /* padded below and to the right */
    F32(&c, "x", S(1, 2, 2, 1), 1, 2, 3, 4);
    accept(&c, NULL);
    expect(&c, "y", 2.5, 1.5, 1.75, 1);
    c.options = "{\"size\": 5}"; /* wider than the grid */
    accept(&c, NULL);
    expect(&c, "y", 0.4, 0.4, 0.4, 0.4);
    c.options = "{\"size\": 1}";
    accept(&c, NULL);
    expect(&c, "y", 1, 2, 3, 4);
    finish(&c);
}

/* Cosines of 1 - dis; the first image's normal patch is rebuilt worse than its abnormal one. */
static void only_images_in_the_wrong_order_are_pushed(void **state)
{
    (void)state;
    call c = start("dictas_query_loss", NULL);
    F32(&c, "f_q", S(3, 2, 2), 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0);
    F32(&c, "retrieved", S(3, 2, 2), 0, 5, 3, 4, 1, 0, 0, 1, 0, 1, 0, 1);
    U8(&c, "abnormal", S(3, 2), 0, 1, 0, 1, 0, 0); /* the second is in order, the third is good */
    accept(&c, "loss_cqc");
    expect(&c, "dis", 1, 0.4, 0, 1, 1, 1);
    near(result(&c, "loss_query", 0), (1 + 0 + 1) / 3.0);
    near(result(&c, "loss_cqc", 0), 0.6);
    for (int i = 4; i < 12; i++)
        near(slope(&c, "retrieved", i), 0);
    assert_true(slope(&c, "retrieved", 0) < -0.1);
    F32(&c, "retrieved", S(3, 2, 2), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    U8(&c, "abnormal", S(3, 2), 0, 0, 0, 0, 0, 0);
    accept(&c, "loss_cqc"); /* no active image: 0 without gradient */
    expect(&c, "loss_cqc", 0);
    near(slope(&c, "f_q", 0), 0);
    all_finite(&c.gradient);
    accept(&c, "loss_query");
    expect(&c, "loss_query", 1);
    all_finite(&c.gradient);
    finish(&c);
}

static void features_of_length_zero_say_nothing(void **state)
{
    (void)state;
    call c = start("dictas_text_loss", "{\"temperature\": 0.001}");
    F32(&c, "g_q", S(2, 2), 0, 0, 1e-3, 0);
    F32(&c, "g_r", S(2, 2), 1, 0, -1, 0);
    F32(&c, "text", S(2, 2, 2), 1, -1, 0, 0, 1, -1, 0, 0);
    I32(&c, "anomalous", S(2), 1, 0);
    accept(&c, "loss");
    near(result(&c, "loss_q", 0), log(2) / 2);
    near(result(&c, "loss_r", 0), 1000); /* the second is as far from "normal" as can be */
    all_finite(&c.gradient);
    finish(&c);
}

static void a_single_patch_makes_an_even_map(void **state)
{
    (void)state;
    call c = start("dictas_anomaly_map", "{\"size\": 3}");
    F32(&c, "sims", S(2, 1, 1, 1), 1, -0.5);
    accept(&c, NULL);
    for (int i = 0; i < 9; i++)
        near(result(&c, "map", i), (0 + 0.75) / 2);
    c.options = "{\"size\": 3, \"sigma\": 0.1}"; /* a radius of 0 */
    F32(&c, "sims", S(1, 1, 2, 3), 1, 1, 1, -1, -1, 1);
    accept(&c, NULL);
    expect(&c, "map", 0, 0, 0, 0.5, 0.5, 0, 1, 1, 0);
    c.options = "{\"size\": 1, \"sigma\": 0}";
    accept(&c, NULL);
    expect(&c, "map", 0);
    finish(&c);
}

static void noise_is_nothing_at_corners(void **state)
{
    (void)state;
    call c = start("dictas_perlin", "{\"size\": 4, \"threshold\": 0}");
    F32(&c, "angles", S(2, 3), 0, 0, 0, 0, 0, 0); /* all slopes downwards */
    accept(&c, NULL);
    near(result(&c, "noise", 0), 0);
    near(result(&c, "noise", 2), 0);
    /* at y = 1/2 the upper slope says 1/2, the lower -1/2; at y = 1/4, 1/4 and -3/4 */
    near(result(&c, "noise", 9), 0);
    double t = 0.25, f = t * t * t * (t * (6 * t - 15) + 10);
    near(result(&c, "noise", 5), sqrt(2) * ((1 - f) * 0.25 - f * 0.75));
    expect(&c, "mask", 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    finish(&c);
}

static void the_largest_share_of_the_picture_may_show_through(void **state)
{
    (void)state;
    call c = start("dictas_synthesize", NULL);
    F32(&c, "image", S(1, 1, 2, 1), 10, 10);
    F32(&c, "source", S(1, 1, 2, 1), 20, 20);
    U8(&c, "mask", S(1, 1, 2), 0, 1);
    F32(&c, "beta", S(1), 0.8); /* as f32 a little more */
    accept(&c, NULL);
    expect(&c, "augmented", 10, 12);
    finish(&c);
}

static void give_block(call *c)
{
    const char *vectors[] = {"ln1_g", "ln1_b", "b1", "b2", "ln2_g", "ln2_b"};
    const char *matrices[] = {"wq", "wk", "wv", "w1", "w2", "w3"};
    for (int i = 0; i < 6; i++) {
        give(c, vectors[i], BL_F32, S(2), VALUES(1, 1));
        give(c, matrices[i], BL_F32, S(2, 2), VALUES(0, 0, 0, 0));
    }
    F32(c, "x", S(1, 1, 2), 3, 3);
}

static void a_block_of_zeros_passes_its_input_on(void **state)
{
    (void)state;
    call c = start("dictas_attn_block", "{\"heads\": 1, \"residual\": true}");
    give_block(&c);
    give_to(&c.cotangent, "y", (bl_type){BL_F32, S(1, 1, 2)}, VALUES(1, 2));
    accept(&c, NULL);
    expect(&c, "y", 3, 3);
    all_finite(&c.gradient); /* a constant row has no variance */
    near(slope(&c, "x", 1), 2);
    c.options = "{\"heads\": 1}";
    accept(&c, NULL);
    expect(&c, "y", 0, 0);
    finish(&c);
}

static void dictas_refuses(void **state)
{
    (void)state;
    REFUSE("dictas_lookup", NULL, "f_k must be f32[1,M,2], not f32[2,1,2]",
           F32(&c, "f_q", S(1, 1, 2), 0, 0), F32(&c, "f_k", S(2, 1, 2), 0, 0, 0, 0),
           F32(&c, "f_v", S(2, 1, 2), 0, 0, 0, 0));
    REFUSE("dictas_lookup", NULL, "f_k must be f32[1,M,2], not f32[1,1,3]",
           F32(&c, "f_q", S(1, 1, 2), 0, 0), F32(&c, "f_k", S(1, 1, 3), 0, 0, 0),
           F32(&c, "f_v", S(1, 1, 3), 0, 0, 0));
    REFUSE("dictas_lookup", NULL, "f_k is f32[1,0,2], expected at least one patch",
           F32(&c, "f_q", S(1, 1, 2), 0, 0), F32(&c, "f_k", S(1, 0, 2), 0),
           F32(&c, "f_v", S(1, 0, 2), 0));
    REFUSE("dictas_sparsemax", NULL, "z is f32[2,0], expected at least one score a row",
           F32(&c, "z", S(2, 0), 0));
    REFUSE("dictas_attn_block", "{\"heads\": 3}", "option heads is 3, expected a divisor of C (2)",
           give_block(&c));
    REFUSE("dictas_aggregate", "{\"size\": 0}", "option size is 0, expected >= 1");
    REFUSE("dictas_query_loss", NULL, "abnormal[0,0] is 2, expected in {0,1}",
           F32(&c, "f_q", S(1, 1, 1), 1), F32(&c, "retrieved", S(1, 1, 1), 1),
           U8(&c, "abnormal", S(1, 1), 2));
    REFUSE("dictas_fuse", NULL, "wf has 3 columns and f 1 patches, expected L C (4) and at least 1",
           F32(&c, "f", S(2, 1, 1, 2), 0, 0, 0, 0), F32(&c, "wf", S(1, 3), 0, 0, 0),
           F32(&c, "bf", S(1), 0), F32(&c, "wc", S(1, 1), 0), F32(&c, "bc", S(1), 0),
           F32(&c, "wp", S(1, 1), 0), F32(&c, "bp", S(1), 0));
    REFUSE("dictas_text_loss", "{\"temperature\": 0}", "option temperature is 0, expected (0,inf)");
    REFUSE("dictas_text_loss", NULL, "anomalous[0] is 2, expected in {0,1}",
           F32(&c, "g_q", S(1, 1), 1), F32(&c, "g_r", S(1, 1), 1),
           F32(&c, "text", S(1, 1, 2), 1, 1), I32(&c, "anomalous", S(1), 2));
    REFUSE("dictas_anomaly_map", "{\"size\": 3, \"sigma\": -1}",
           "option sigma is -1, expected [0,inf)");
    REFUSE("dictas_anomaly_map", "{\"sigma\": 1}", "option size is required");
    REFUSE("dictas_perlin", "{\"size\": 3}",
           "angles is f32[1,2], expected at least two corners a side",
           F32(&c, "angles", S(1, 2), 0, 0));
    REFUSE("dictas_synthesize", NULL, "beta[0] is 0.8", F32(&c, "image", S(1, 1, 1, 1), 0),
           F32(&c, "source", S(1, 1, 1, 1), 0), U8(&c, "mask", S(1, 1, 1), 1),
           F32(&c, "beta", S(1), 0.80001));
}

/* --- manifold entropy ------------------------------------------------------------------------- */

static void a_nearest_row_is_the_lowest_of_equals(void **state)
{
    (void)state;
    call c = start("manifold_entropy_rb", "{\"reduction\": \"mean_log\", \"weight\": 2}");
    F32(&c, "code", S(2, 2), 0, 0, 5, 5);
    F32(&c, "buffer", S(3, 2), 2, 0, 0, 2, 5, 9);
    accept(&c, "loss");
    expect(&c, "nn_dist", 2, 8);
    expect(&c, "nn_index", 0, 2);
    near(result(&c, "loss", 0), -log(2) - log(8));
    near(slope(&c, "code", 0), -1.0 / 2 * (0 - 2)); /* -2 / B / nn * 2 (code - row) / K */
    near(slope(&c, "code", 1), 0);
    near(slope(&c, "code", 3), -1.0 / 8 * (5 - 9));
    expect(&c, "buffer_out", 5, 9, 0, 0, 5, 5); /* as many leave as come */
    c.options = "{\"drop\": 0}";
    accept(&c, "loss");
    expect(&c, "buffer_out", 2, 0, 0, 2, 5, 9, 0, 0, 5, 5);
    near(result(&c, "loss", 0), -log(5));
    c.options = "{\"drop\": 3}";
    accept(&c, NULL);
    expect(&c, "buffer_out", 0, 0, 5, 5);
    finish(&c);
}

static void slots_meet_their_own_past(void **state)
{
    (void)state;
    call c = start("manifold_entropy_rb", "{\"layout\": \"per_slot\"}");
    F32(&c, "code", S(2, 1), 0, 10);
    F32(&c, "buffer", S(2, 2, 1), 10, 1, 4, 0);
    accept(&c, "loss");
    expect(&c, "nn_dist", 16, 81);
    expect(&c, "nn_index", 1, 0);
    near(result(&c, "loss", 0), -log(48.5));
    near(slope(&c, "code", 1), -9 / 48.5);
    expect(&c, "buffer_out", 4, 0, 0, 10); /* one row left, one came */
    finish(&c);
}

/* One code that is in the buffer costs the logarithm of the mean nothing but its share. */
static void one_copy_is_no_mistake(void **state)
{
    (void)state;
    call c = start("manifold_entropy_rb", NULL);
    F32(&c, "code", S(2, 1), 1, 5);
    F32(&c, "buffer", S(1, 1), 1);
    accept(&c, "loss");
    near(result(&c, "loss", 0), -log(8));
    near(slope(&c, "code", 0), 0);
    near(slope(&c, "code", 1), -0.5);
    c.options = "{\"reduction\": \"mean_log\"}";
    accept(&c, NULL);
    assert_true(result(&c, "loss", 0) == INFINITY);
    finish(&c);
}

static void a_pair_moves_apart(void **state)
{
    (void)state;
    call c = start("manifold_entropy_batch", NULL);
    F32(&c, "code", S(2, 1), 1, 3);
    accept(&c, "loss");
    expect(&c, "nn_dist", 4, 4);
    near(result(&c, "loss", 0), -log(4));
    near(slope(&c, "code", 0), 1);
    near(slope(&c, "code", 1), -1);
    finish(&c);
    c = start("manifold_entropy_kl_estimate", NULL);
    F32(&c, "code", S(2, 1), 1, 3); /* log 2 + log 1 + log of the length 2 + Euler's constant */
    accept(&c, "entropy");
    near(result(&c, "entropy", 0), 2 * log(2) + 0.5772156649015329);
    near(slope(&c, "code", 1), 0.5);
    F32(&c, "code", S(3, 1), 1, 1.0000001, 1e6);
    accept(&c, "entropy");
    all_finite(&c.gradient);
    finish(&c);
}

static void constants_have_no_gradient(void **state)
{
    (void)state;
    call c = start("manifold_entropy_d_loss", "{\"noise_std\": 0}");
    const char *codes[] = {"z_real", "z_real_aug", "z_fake", "z_fake_aug", "z_mix", "noise"};
    for (int i = 0; i < 6; i++)
        give(&c, codes[i], BL_F32, S(1, 1), VALUES(i));
    F32(&c, "alpha", S(1), -1);
    F32(&c, "buffer", S(1, 1), 3);
    accept(&c, "loss");
    expect(&c, "dlle", 2);
    expect(&c, "disomap", 0); /* z_mix = 4 = -1 * 0 + 2 * 2 */
    near(result(&c, "entropy", 0), -log(9));
    expect(&c, "critic", 2);
    near(result(&c, "loss", 0), 4 - log(9));
    expect(&c, "buffer_out", 0);
    near(slope(&c, "z_real", 0), 2 * -1 + 2.0 / 3 - 1);
    near(slope(&c, "z_fake", 0), 2 * -1 + 1);
    near(slope(&c, "z_real_aug", 0), 0);
    near(slope(&c, "z_fake_aug", 0), 0);
    finish(&c);
}

static void a_ramp_ends(void **state)
{
    (void)state;
    call c = start("manifold_entropy_ramp", "{\"weight\": 4, \"ramp_epochs\": 8}");
    F32(&c, "epoch", BL_SCALAR, 2);
    accept(&c, NULL);
    expect(&c, "weight_out", 1);
    F32(&c, "epoch", BL_SCALAR, 9);
    accept(&c, NULL);
    expect(&c, "weight_out", 4);
    finish(&c);
}

static void manifold_entropy_refuses(void **state)
{
    (void)state;
    REFUSE("manifold_entropy_rb", NULL,
           "code: the mean distance of its rows to the buffer is 0, expected > 0",
           F32(&c, "code", S(2, 1), 1, 2), F32(&c, "buffer", S(2, 1), 2, 1));
    REFUSE("manifold_entropy_rb", "{\"layout\": \"per_slot\"}",
           "code: the mean distance of its rows to the buffer is 0, expected > 0",
           F32(&c, "code", S(2, 1), 1, 2), F32(&c, "buffer", S(1, 2, 1), 1, 2));
    REFUSE("manifold_entropy_rb", NULL, "buffer must be f32[S,2] or f32[S,1,2], not f32[1,3]",
           F32(&c, "code", S(1, 2), 1, 2), F32(&c, "buffer", S(1, 3), 1, 2, 3));
    REFUSE("manifold_entropy_rb", NULL, "buffer has no rows, expected at least one",
           F32(&c, "code", S(1, 1), 1), F32(&c, "buffer", S(0, 1), 0));
    REFUSE("manifold_entropy_rb", NULL, "buffer is f32[1,1,1], expected [S,K] with layout shared",
           F32(&c, "code", S(1, 1), 1), F32(&c, "buffer", S(1, 1, 1), 0));
    REFUSE("manifold_entropy_rb", "{\"layout\": \"per_slot\"}",
           "buffer is f32[1,1], expected [S,B,K] with layout per_slot", F32(&c, "code", S(1, 1), 1),
           F32(&c, "buffer", S(1, 1), 0));
    REFUSE("manifold_entropy_rb", "{\"drop\": -1}", "option drop is -1, expected >= 0");
    REFUSE("manifold_entropy_rb", "{\"weight\": -1}", "option weight is -1, expected [0,inf)");
    REFUSE("manifold_entropy_disomap", "{\"noise_std\": -1}",
           "option noise_std is -1, expected [0,inf)");
    REFUSE("manifold_entropy_batch", NULL, "code is f32[1,2], expected at least 2 rows",
           F32(&c, "code", S(1, 2), 1, 2));
    REFUSE("manifold_entropy_batch", NULL,
           "code: the mean distance to the nearest other row is 0, expected > 0",
           F32(&c, "code", S(4, 1), 1, 2, 2, 1));
    REFUSE("manifold_entropy_kl_estimate", NULL,
           "code: rows 0 and 2 are equal, expected distinct rows",
           F32(&c, "code", S(3, 2), 1, 2, 3, 4, 1, 2));
    REFUSE("manifold_entropy_ramp", "{\"ramp_epochs\": 0.5}",
           "option ramp_epochs is 0.5, expected >= 1");
    REFUSE("manifold_entropy_g_loss", NULL,
           "z_fake: the mean distance of its rows to the buffer is 0, expected > 0",
           F32(&c, "z_fake", S(1, 1), 1), F32(&c, "buffer", S(1, 1), 1));
    REFUSE("manifold_entropy_critic", NULL, "z_fake has no rows, expected at least one",
           F32(&c, "z_real", S(1, 1), 1), F32(&c, "z_fake", S(0, 1), 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_facets_of_a_line_are_found),
        cmocka_unit_test(equal_points_are_equal_neighbours),
        cmocka_unit_test(a_map_of_two_points_is_always_right),
        cmocka_unit_test(an_empty_cluster_keeps_its_place),
        cmocka_unit_test(mean_images_are_of_the_nearest),
        cmocka_unit_test(a_step_changes_pixels_by_its_size_on_average),
        cmocka_unit_test(crops_stay_within_the_image),
        cmocka_unit_test(halves_round_to_even_sizes),
        cmocka_unit_test(a_constant_image_is_smooth),
        cmocka_unit_test(multifaceted_vis_refuses),
        cmocka_unit_test(short_names_fill_the_first_columns),
        cmocka_unit_test(the_start_is_the_encoders_output),
        cmocka_unit_test(what_comes_later_does_not_matter),
        cmocka_unit_test(the_penalty_has_a_slope_at_its_start),
        cmocka_unit_test(a_gap_knows_small_vectors),
        cmocka_unit_test(a_token_may_be_restored_twice),
        cmocka_unit_test(cross_init_refuses),
        cmocka_unit_test(a_dictionary_of_one_patch_gives_that_patch),
        cmocka_unit_test(the_edge_of_the_support_is_outside),
        cmocka_unit_test(neighbourhoods_count_what_lies_beyond),
        cmocka_unit_test(only_images_in_the_wrong_order_are_pushed),
        cmocka_unit_test(features_of_length_zero_say_nothing),
        cmocka_unit_test(a_single_patch_makes_an_even_map),
        cmocka_unit_test(noise_is_nothing_at_corners),
        cmocka_unit_test(the_largest_share_of_the_picture_may_show_through),
        cmocka_unit_test(a_block_of_zeros_passes_its_input_on),
        cmocka_unit_test(dictas_refuses),
        cmocka_unit_test(a_nearest_row_is_the_lowest_of_equals),
        cmocka_unit_test(slots_meet_their_own_past),
        cmocka_unit_test(one_copy_is_no_mistake),
        cmocka_unit_test(a_pair_moves_apart),
        cmocka_unit_test(constants_have_no_gradient),
        cmocka_unit_test(a_ramp_ends),
        cmocka_unit_test(manifold_entropy_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
