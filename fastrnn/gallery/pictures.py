"""Pictures of what a model does: as characters, and as PNG files."""

SHADES = " .:-=+*#%@"


def show_attention(console, columns, rows, weights):
    """Which of the columns each row looked at: the darker, the more. weights (rows, columns)."""
    wide = 1 + max(3, *map(len, rows))
    console.print("\n" + " " * wide + "  ".join(columns), markup=False)
    for name, row in zip(rows, weights.tolist(), strict=True):
        shades = [SHADES[min(9, int(10 * weight))] for weight in row]
        cells = (f"{shade:{len(column)}}" for shade, column in zip(shades, columns, strict=True))
        console.print(f"{name:{wide}}" + "  ".join(cells), markup=False)


def save_attention(path, pictures):
    """The same side by side, of several (columns, rows, weights)."""
    figure = _figure(10, 3.5)
    all_axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    for axes, (columns, rows, weights) in zip(all_axes, pictures, strict=True):
        axes.imshow(weights.tolist(), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(
            range(len(columns)), columns, rotation=90 * (len(max(columns, key=len)) > 2)
        )
        axes.set_yticks(range(len(rows)), rows)
    figure.savefig(path, dpi=150)


def save_images(path, titled, columns):
    """Several (title, grey values (H, W)) at one scale, so many in a row."""
    rows = -(-len(titled) // columns)
    heights, widths = zip(*(image.shape for _, image in titled), strict=True)
    height, width = max(heights), max(widths)
    figure = _figure(10, (10 / columns * height / width + 0.6) * rows)
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in all_axes[len(titled) :]:
        axes.axis("off")
    for axes, (title, image) in zip(all_axes, titled, strict=False):
        axes.imshow(image.tolist(), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
        axes.spines[:].set_color("0.8")
        axes.set_title(title, fontsize="small", loc="left")
    figure.savefig(path, dpi=150)


def save_histogram(path, x, y, values):
    """How often which of {label: values from 0 to 1}."""
    figure = _figure(6, 3.5)
    axes = figure.subplots()
    axes.hist(list(values.values()), bins=20, range=(0, 1), label=list(values))
    axes.set(xlabel=x, ylabel=y)
    axes.legend()
    figure.savefig(path, dpi=150)


def save_lines(path, x, y, lines):
    """{label: values}, one after another."""
    figure = _figure(10, 3.5)
    axes = figure.subplots()
    for label, values in lines.items():
        axes.plot([float(value) for value in values], label=label)
    axes.set(xlabel=x, ylabel=y)
    axes.legend()
    figure.savefig(path, dpi=150)


def save_chances(path, title, names, chances, sound):
    """How likely each of the names is at each moment (T, names), above the sound (T, bands)."""
    figure = _figure(10, 5)
    above, below = figure.subplots(2, sharex=True)
    above.plot(chances.tolist(), label=names)
    above.set(title=title, ylabel="chance")
    above.legend(ncols=2, loc="upper left", bbox_to_anchor=(1, 1))
    below.imshow(sound.T.tolist(), aspect="auto", origin="lower", cmap="magma")
    below.set(xlabel="time", ylabel="sound")
    figure.savefig(path, dpi=150)


def _figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
