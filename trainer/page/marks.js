// Marks what the search found in the texts of the group, over the colours of the tokens.

const MOST_MARKS = 500;

function markHits(box, wanted) {
  if (!window.Highlight) return;
  const ranges = [];
  const word = wanted.trim().toLowerCase();
  if (word) {
    for (const text of box.querySelectorAll(".prose, .reply, .reason")) rangesIn(text, word, ranges);
  }
  CSS.highlights.set("hit", new Highlight(...ranges));
}

// A find may begin in one token and end in another: places are counted over all text nodes.
function rangesIn(box, word, ranges) {
  const nodes = [], starts = [];
  let whole = "";
  const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.parentElement.closest(".stop, .author, .more")) continue;
    nodes.push(node);
    starts.push(whole.length);
    whole += node.data;
  }
  const lower = whole.toLowerCase();
  if (lower.length !== whole.length) return; // a letter whose small form is longer: places shift
  const place = (at) => {
    let n = nodes.length - 1;
    while (n > 0 && starts[n] > at) n--;
    return [nodes[n], at - starts[n]];
  };
  for (let at = lower.indexOf(word); at >= 0 && ranges.length < MOST_MARKS; at = lower.indexOf(word, at + word.length)) {
    const range = new Range();
    range.setStart(...place(at));
    const [node, last] = place(at + word.length - 1);
    range.setEnd(node, last + 1);
    ranges.push(range);
  }
}
