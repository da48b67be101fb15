/* Self-distillation for further pre-training. Lee et al., ICLR 2023, arXiv 2210.02871. Continuing
 * the self-supervised pre-training of a transformer on a small target set overfits. So it is done
 * twice from the same weights: the first result is the teacher, and the second run is also pulled
 * towards the teacher's features of the whole image, while its masked auto-encoding goes on.
 *
 * What the paper leaves to masked auto-encoders (patches, masks, normalised targets) follows the
 * published implementation that its code calls: unbiased variance, masks by the order of noise. */
#include "methods/method.h"

/* --- patches ---------------------------------------------------------------------------------- */

#define SELF_DISTILL_PATCHIFY(IN, OPT, OUT)                                                        \
    IN(image, "f32[B,H,W,Ch]", "grad", "images")                                                   \
    OPT(patch, BL_REQUIRED_INTEGER, ">= 1", "side of a patch; divides H and W")                    \
    OUT(patches, "f32[B,?,?]", "[B, (H/p)(W/p), p p Ch], both row by row")

BL_CONTRACT(self_distill_patchify, SELF_DISTILL_PATCHIFY, "cuts images into square patches")
{
    bl_shape size = bl_type_of(f->image).shape;
    const int64_t *d = size.dim, p = f->patch;
    if (d[1] % p || d[2] % p) {
        bl_poison(graph, "image is %lld x %lld, expected multiples of patch = %lld",
                  (long long)d[1], (long long)d[2], (long long)p);
        return;
    }
    int64_t rows = d[1] / p, columns = d[2] / p;
    bl_tensor cut = bl_reshape(f->image, BL_SHAPE(d[0], rows, p, columns, p, d[3]));
    f->patches = bl_reshape(bl_transpose(cut, 0, 1, 3, 2, 4, 5),
                            BL_SHAPE(d[0], rows * columns, p * p * d[3]));
}

/* --- masks ------------------------------------------------------------------------------------ */

#define SELF_DISTILL_MASK(IN, OPT, OUT)                                                            \
    IN(noise, "f32[B,L]", "", "uniform draws")                                                     \
    OPT(mask_ratio, 0.75, "[0,1)", "share of the patches hidden; no schedule")                     \
    OUT(keep, "i32[B,?]", "patches shown to the encoder, in this order")                           \
    OUT(mask, "i32[B,L]", "1 where hidden")                                                        \
    OUT(restore, "i32[B,L]", "place of each patch in the shuffled sequence")

BL_CONTRACT(self_distill_mask, SELF_DISTILL_MASK, "which patches are hidden")
{
    int64_t L = bl_dim(f->noise, 1);
    if (!bl_is_number(f->mask_ratio)) {
        bl_poison(graph, "mask_ratio is a tensor, expected a number: it decides a size");
        return;
    }
    int64_t kept = (int64_t)((double)L * (1 - f->mask_ratio.number));
    if (kept == 0) {
        bl_poison(graph, "mask_ratio %g of %lld patches leaves none, expected at least one",
                  f->mask_ratio.number, (long long)L);
        return;
    }
    bl_tensor shuffle = bl_argsort(f->noise, 1, false);
    f->keep = bl_slice_axis(shuffle, 1, 0, kept);
    f->restore = bl_argsort(shuffle, 1, false);
    f->mask = bl_cast(bl_ge(f->restore, (double)kept), BL_I32);
}

/* --- the loss --------------------------------------------------------------------------------- */

#define SELF_DISTILL_LOSS(IN, OPT, OUT)                                                            \
    IN(pred, "f32[B,L,P]", "grad, rows > 0", "decoder's output, all patches")                      \
    IN(patches, "f32[B,L,P]", "", "the image's patches")                                           \
    IN(mask, "i32[B,L]", "in {0,1}", "1 where hidden; at least one is")                            \
    IN(student, "f32[B,S...]", "grad", "[B,D] or [B,T,D]: features of the whole image")            \
    IN(teacher, "f32[B,S...]", "", "the teacher's, of the same image")                             \
    OPT(weight, 1.0, "[0,inf)", "of the distillation")                                             \
    OPT(norm_pix, 1, "flag", "standardise each patch before comparing")                            \
    OPT(norm_eps, 1e-6, "[0,inf)", "added to a patch's variance")                                  \
    OPT(reduce, "sum", "sum|mean", "squares summed over features, or averaged")                    \
    OUT(loss, "f32[]", "mae + weight distill")                                                     \
    OUT(mae, "f32[]", "mean squared error of the hidden patches")                                  \
    OUT(distill, "f32[]", "squared distance of the features")

static bl_status self_distill_loss_check(const bl_dictionary *in, BL_UNUSED_ const void *options)
{
    const bl_array *mask = bl_dictionary_find(in, "mask");
    for (int64_t i = 0; i < bl_array_count(mask); i++)
        if (bl_i32(mask)[i])
            return BL_OK;
    return bl_fail(BL_INVALID, "mask hides no patch, expected at least one 1");
}

/* Each patch with mean 0 and unbiased variance 1; zeros where all its values are equal. */
static bl_tensor standardised(bl_tensor patches, bl_tensor epsilon)
{
    double P = (double)bl_dim(patches, -1);
    bl_tensor centred = bl_sub(patches, bl_mean_keep(patches, -1));
    bl_tensor variance = bl_div(bl_sum_keep(bl_square(centred), -1), P - 1);
    bl_tensor deviation = bl_sqrt(bl_add(variance, epsilon));
    bl_tensor scale = bl_div(1, bl_select(bl_gt(deviation, 0), deviation, 1));
    return bl_mul(centred, scale); /* a division a row, not one a pixel */
}

BL_CONTRACT_CHECKED(self_distill_loss, SELF_DISTILL_LOSS,
                    "masked auto-encoding plus distance to the teacher's features",
                    self_distill_loss_check)
{
    int64_t P = bl_dim(f->pred, -1), least = f->norm_pix ? 2 : 1;
    int rank = bl_rank(f->student);
    if (P < least || rank < 2 || rank > 3) {
        bl_poison(graph,
                  "patches of P = %lld values and features of rank %d, expected P >= %lld "
                  "and student [B,D] or [B,T,D]",
                  (long long)P, rank, (long long)least);
        return;
    }
    bl_tensor patches = bl_stop_gradient(f->patches), hidden = bl_ne(f->mask, 0);
    bl_tensor target = f->norm_pix ? standardised(patches, f->norm_eps) : patches;
    bl_tensor error = bl_mean(bl_square(bl_sub(f->pred, target)), -1);
    bl_tensor gap = bl_square(bl_sub(f->student, bl_stop_gradient(f->teacher)));

    f->mae = bl_div(bl_sum(bl_select(hidden, error, 0)), bl_sum(bl_cast(hidden, BL_F32)));
    f->distill = bl_is(f->reduce, "mean") ? bl_mean(gap)
                                          : bl_div(bl_sum(gap), (double)bl_dim(f->student, 0));
    f->loss = bl_add(f->mae, bl_mul(f->weight, f->distill));
}

const bl_method bl_self_distill_pretrain = {
    .slug = "self_distill_pretrain",
    .family = "adaptation",
    .paper = "Lee et al. 2023, arXiv 2210.02871",
    .summary = "(no arm) further pre-training on a small set that does not overfit it",
    .when = "A pre-trained transformer and few target images or texts: before fine-tuning. Costs a "
            "second further pre-training whose steps have two more forward passes.",
    .functions = {&self_distill_loss_contract, &self_distill_mask_contract,
                  &self_distill_patchify_contract},
    .example = "ballast check tests/cases/35-self-distill-pretrain/self_distill_loss-1.safetensors",
};
