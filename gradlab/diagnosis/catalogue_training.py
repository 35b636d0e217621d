"""Catalogue: findings about training: what the loss did, clipping, sizes of updates, curvature."""

from __future__ import annotations

from gradlab.diagnosis.entry import Entry

TRAINING: dict[str, Entry] = {
    "loss-jumps": Entry(
        title="The loss jumps",
        meaning=(
            "At some updates the loss is far above what it has just been. Either the step before led over a cliff of the "
            "loss surface, or a batch holds sequences unlike all others; the size of the gradient at the jump tells how far "
            "the next step would have gone."
        ),
        remedy=(
            "Clip the joint norm of the gradients at its usual size (the median while the loss is calm), keep the learning rate "
            "steady, or divide it by 3. If the gradient is large at the same batches each epoch, look at those sequences."
        ),
        pytorch="""loss.backward()
norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)  # the usual norm; print(norm) for a while
optimizer.step()""",
        keras="""optimizer = keras.optimizers.Adam(learning_rate=3e-4, global_clipnorm=1.0)  # the usual norm
model.compile(optimizer=optimizer, loss=loss)""",
        reference="Pascanu, Mikolov & Bengio (2013), sec. 2.3 and 3.2",
    ),
    "clipping-always": Entry(
        title="Clipping acts at nearly every update",
        meaning=(
            "The gradient is shortened nearly always, so its length no longer matters: each step has the length learning rate "
            "times threshold, near a minimum too, where steps should shrink. With Adam the threshold then hardly matters at all."
        ),
        remedy=(
            "Raise the threshold to the usual norm of the gradient, so that it cuts the exceptions, and lower the learning rate "
            "by what the steps grow. If the gradients are those of a scaled loss, unscale them before clipping."
        ),
        pytorch="""# usual = the median over a few hundred updates of what clip_grad_norm_ returns
scaler.unscale_(optimizer)  # with mixed precision only
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=2.0 * usual)
optimizer.step()""",
        keras="""# usual = the median over a few hundred updates of the joint norm of the gradients
optimizer = keras.optimizers.SGD(learning_rate=0.01, global_clipnorm=2.0 * usual)
model.compile(optimizer=optimizer, loss=loss)""",
        reference="Pascanu, Mikolov & Bengio (2013), sec. 3.2: thresholds of 0.5 to 10 times the average norm",
    ),
    "clipping-never": Entry(
        title="The clipping threshold is never reached",
        meaning=(
            "No gradient came near the threshold, not even where the loss jumped or the gradient rose far above its usual "
            "size. Clipping is switched on, and does nothing."
        ),
        remedy="Lower the threshold to one to five times the usual norm of the gradient, so that it cuts the exceptions.",
        pytorch="""# usual = the median over a few hundred updates of what clip_grad_norm_ returns
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=2.0 * usual)
optimizer.step()""",
        keras="""# usual = the median over a few hundred updates of the joint norm of the gradients
optimizer = keras.optimizers.Adam(global_clipnorm=2.0 * usual)
model.compile(optimizer=optimizer, loss=loss)""",
        reference="Pascanu, Mikolov & Bengio (2013), sec. 3.2: thresholds of 0.5 to 10 times the average norm",
    ),
    "clipping-inactive": Entry(
        title="Clipping does not act on what the optimiser uses",
        meaning=(
            "After clipping no gradient can be longer than the threshold; here it is, or it is cut to another length than the "
            "threshold. Clipping then stands before the backward pass or after the step, sees only some of the parameters, or "
            "gradients of a scaled loss."
        ),
        remedy=(
            "Clip all parameters that the optimiser updates, jointly, between the backward pass and the step; with mixed "
            "precision unscale the gradients first."
        ),
        pytorch="""scaler.scale(loss).backward()  # without mixed precision: loss.backward()
scaler.unscale_(optimizer)     # with mixed precision only
parameters = [p for group in optimizer.param_groups for p in group["params"]]
torch.nn.utils.clip_grad_norm_(parameters, max_norm=1.0)
scaler.step(optimizer)         # without mixed precision: optimizer.step()
scaler.update()""",
        keras="""# global_clipnorm cuts all gradients jointly; clipnorm cuts each variable by itself
optimizer = keras.optimizers.Adam(global_clipnorm=1.0)
model.compile(optimizer=optimizer, loss=loss)""",
        reference="Pascanu, Mikolov & Bengio (2013), algorithm 1: the norm is that of all parameters, before the update",
    ),
    "update-ratio": Entry(
        title="Updates are out of proportion to the parameters",
        meaning=(
            "An update usually changes a weight matrix by about a thousandth of its size. Far more, and what was learned, or a "
            "careful initial value, is thrown away; far less, and nothing happens within any bearable number of updates."
        ),
        remedy=(
            "Multiply the learning rate by 0.001 over the ratio that was found; if one matrix alone has it, give that one a rate "
            "of its own. Where only the first updates are too large, raise the rate from near zero over the first few hundred."
        ),
        pytorch="""ratio = 0.5  # what was found
for group in optimizer.param_groups:  # or the group of the one parameter
    group["lr"] *= 1e-3 / ratio
warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-3, total_iters=500)  # warmup.step() after each update""",
        keras="""ratio = 0.5  # what was found
rate = float(optimizer.learning_rate) * 1e-3 / ratio
optimizer.learning_rate = rate""",
        reference="Karpathy (2015), CS231n course notes, Neural networks 3: ratio of weights to updates",
    ),
    "cliff": Entry(
        title="A cliff lies ahead",
        meaning=(
            "The loss is curved so strongly that a gradient step of this learning rate overshoots and climbs the other side, or "
            "it rises steeply within the step, as surfaces of recurrent networks do. It is judged for plain gradient descent; "
            "momentum bears a little more curvature, Adam measures it by other units."
        ),
        remedy=(
            "Divide the learning rate by twice the number that was found, or clip the joint norm of the gradients: both shorten "
            "the step. Inputs that are not centred make the curvature large: standardise them."
        ),
        pytorch="""found = 8.0  # the sharpness, in units of 2/learning rate
for group in optimizer.param_groups:
    group["lr"] /= 2.0 * found
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)  # before each optimizer.step()""",
        keras="""found = 8.0  # the sharpness, in units of 2/learning rate
optimizer = keras.optimizers.SGD(learning_rate=0.01 / (2.0 * found), global_clipnorm=1.0)
model.compile(optimizer=optimizer, loss=loss)""",
        reference="Cohen, Kaur, Li, Kolter & Talwalkar (2021), sec. 2; Pascanu, Mikolov & Bengio (2013), sec. 2.3",
    ),
}
