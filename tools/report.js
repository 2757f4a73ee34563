// Of a report: a click on a head sorts its table, one on a picture enlarges it, a link opens what it leads to.
const number = cell => { const found = cell.textContent.match(/[-+]?\d+(\.\d+)?/); return found ? parseFloat(found[0]) : NaN; };
for (const head of document.querySelectorAll(".sort thead th")) {
  head.addEventListener("click", () => {
    const place = head.cellIndex, body = head.closest("table").tBodies[0];
    const falling = head.getAttribute("aria-sort") !== "descending" && place > 0 || head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const sign = falling ? -1 : 1;
    const compare = (a, b) => {
      const x = number(a.cells[place]), y = number(b.cells[place]);
      if (place === 0) return sign * a.cells[0].textContent.localeCompare(b.cells[0].textContent);
      return isNaN(x) ? 1 : isNaN(y) ? -1 : sign * (x - y);  // what has no number stands last
    };
    body.append(...[...body.rows].sort(compare));
  });
}
const dialog = document.querySelector("dialog");
for (const picture of document.images) {
  picture.addEventListener("click", () => {
    const large = picture.cloneNode();
    large.className = picture.naturalWidth < 400 ? "tiny" : "";
    dialog.replaceChildren(large);
    dialog.showModal();
  });
}
dialog.addEventListener("click", () => dialog.close());
const open = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();
