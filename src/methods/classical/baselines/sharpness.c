/* Sharpness-aware minimisation: the step is taken with the gradient at the worst nearby weights. */
#include "methods/classical/baselines/weights.h"

#define BASE_SAM_PERTURB(IN, OPT, OUT, INS, OUTS)                                                  \
    INS(w, "f32[S...]", "", "weights")                                                             \
    INS(g, "f32[S...]", "", "gradients")                                                           \
    OPT(rho, 0.05, "[0,inf), tune [0.01,0.5] log", "how far to move")                              \
    OPT(adaptive, 0, "flag", "scale by |w|: needs a rho ten to forty times larger")                \
    OUTS(w_new, "f32[S...]", "w + a^2 g rho / (n + 1e-12), a = 1 or |w|")                          \
    OUT(grad_norm, "f32[]", "n = sqrt(sum (a g)^2)")

/* a g for each parameter, its length over all of them, and the perturbed weights. */
static bl_tensor perturb(const bl_tensor *w, const bl_tensor *g, int count, bl_tensor rho,
                         bool adaptive, bl_tensor *w_new)
{
    for (int i = 0; i < count; i++)
        w_new[i] = adaptive ? bl_mul(bl_abs(w[i]), g[i]) : g[i];
    bl_tensor norm = bl_global_norm(w_new, count);
    bl_tensor scale = bl_div(rho, bl_add(norm, 1e-12));
    for (int i = 0; i < count; i++) {
        bl_tensor direction = adaptive ? bl_mul(bl_abs(w[i]), w_new[i]) : w_new[i];
        w_new[i] = bl_add(w[i], bl_mul(direction, scale));
    }
    return norm;
}

BL_CONTRACT_LISTS(base_sam_perturb, BASE_SAM_PERTURB,
                  "moves weights along the gradient, a distance rho (Foret et al. 2021)")
{
    f->w_new.count = f->w.count;
    f->grad_norm = perturb(f->w.at, f->g.at, f->w.count, f->rho, f->adaptive != 0, f->w_new.at);
}

static void sam_gradient(bl_step *s, const void *options)
{
    const struct base_sam_perturb *o = options;
    bl_tensor *moved = bl_alloc((size_t)(s->parameters + 1) * sizeof *moved);
    if (!moved) {
        bl_poison(s->graph, "sam: out of memory");
        return;
    }
    bl_tensor norm = perturb(s->raw, s->gradient, s->parameters, o->rho, o->adaptive != 0, moved);
    bl_grad(bl_loss_at(s, moved), moved, s->parameters, s->gradient);
    bl_measure(s, "norm", norm);
    bl_release(moved);
}

const bl_method bl_sam = {
    .slug = "sam",
    .family = "classical",
    .paper = "Foret et al. 2021, arXiv 2010.01412",
    .summary = "seeks flat minima: gradients at the worst nearby weights",
    .when = "When there is time: every step is two passes, so compare at equal time as well. Often "
            "the strongest single arm on images and under label noise.",
    .functions = {&base_sam_perturb_contract},
    .example = "--arm \"sam(rho=0.1)\"",
    .hooks = &(const bl_hooks){.gradient = sam_gradient},
};
