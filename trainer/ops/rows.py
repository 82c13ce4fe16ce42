"""Rows of public data sets as rewards read them: `prompts: {type: adapted, adapt: ...}`."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def scienceqa(row: Row) -> Row:
    """derek-thomas/ScienceQA: lettered choices under the question, the letter as the answer."""
    choices = [str(choice) for choice in row["choices"]]
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    lines = [f"({letter}) {text}" for letter, text in zip(letters, choices, strict=True)]
    question = "\n".join([str(row["question"]), *lines])
    return {
        "question": question,
        "answer": letters[int(row["answer"])],
        "options": choices,
        "image": row.get("image"),
    }


def refcoco(row: Row) -> Row:
    """lmms-lab/RefCOCO, RefCOCO+ and RefCOCOg: [x, y, width, height] and the descriptions of one
    object become a question about the first description, and [x1, y1, x2, y2] in pixels."""
    x, y, width, height = map(float, row["bbox"])
    said = row["answer"] if isinstance(row["answer"], str) else row["answer"][0]
    return {
        "question": f"Give the bounding box of {said} as [x1, y1, x2, y2].",
        "answer": [x, y, x + width, y + height],
        "bbox_space": "pixels",
        "image": row["image"],
    }


def captions(row: Row) -> Row:
    """Rows with reference texts in `answer`, `caption` or `captions`."""
    found = next(row[name] for name in ("answer", "captions", "caption") if row.get(name))
    question = row.get("question") or "Describe the image in detail."
    return {"question": question, "answer": found, "image": row["image"]}


def lisa(row: Row) -> Row:
    """LISA's reasoning grounding as Visual-RFT asks it: an instruction and the box of its first
    polygon, in pixels. Columns instruction (or text), box or points, image.

    Where the size of the image is known, by columns width and height or because it is in memory,
    `demonstration` is the answer for supervised fine-tuning, in thousandths of the image:
    `<answer>(x1,y1),(x2,y2)</answer>`."""
    said = row.get("instruction") or row["text"]
    box = row.get("box")
    if box is None:
        xs, ys = zip(*row["points"], strict=True)
        box = [min(xs), min(ys), max(xs), max(ys)]
    question = f"Output the bounding box in the image corresponding to the instruction: {said}"
    made = {"question": question, "answer": [float(v) for v in box], "image": row["image"]}
    size = (row["width"], row["height"]) if "width" in row else getattr(row["image"], "size", None)
    if size is not None:
        x1, y1, x2, y2 = (
            min(1000, max(0, round(1000 * v / side)))
            for v, side in zip(made["answer"], (*size, *size), strict=True)
        )
        made["demonstration"] = f"<answer>({x1},{y1}),({x2},{y2})</answer>"
    return made
