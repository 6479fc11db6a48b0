const esc = t => String(t).replace(/[&<>"]/g, c => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'}[c]));
const num = v => v === null || v === undefined ? '–' : (Math.abs(v) >= 100 ? v.toFixed(0) : Math.abs(v) >= 10 ? v.toFixed(1) : Math.abs(v) < 0.1 && v !== 0 ? v.toFixed(3) : v.toFixed(2));
const way = c => c.better === 'higher' ? '▲ higher is better' : c.better === 'lower' ? '▼ lower is better' : '';
const arrow = c => c.better === 'higher' ? ' ▲' : c.better === 'lower' ? ' ▼' : '';
function strip(src) { return src ? `<div class="strip" data-src="${esc(src)}"><img loading="lazy" decoding="async" alt="" src="${esc(src)}"><i></i></div>` : '<div class="strip"></div>'; }
const preview = document.createElement('div'); preview.id = 'preview'; document.body.append(preview);
function scrub(box, k) { const img = box.querySelector('img'), bar = box.querySelector('i'); if (img) img.style.transform = `translateX(${-12.5 * k}%)`; if (bar) bar.style.left = `${12.5 * k}%`; }
function shape(img) { const box = img.closest('.strip'); if (box && img.naturalHeight) box.style.aspectRatio = `${img.naturalWidth / 8} / ${img.naturalHeight}`; }
document.addEventListener('load', e => { if (e.target.tagName === 'IMG') shape(e.target); }, true);
document.addEventListener('mousemove', e => {
  const box = e.target.closest ? e.target.closest('.strip[data-src]') : null;
  if (!box || preview.contains(box)) { preview.style.display = 'none'; return; }
  const r = box.getBoundingClientRect(), k = Math.min(7, Math.max(0, Math.floor(8 * (e.clientX - r.left) / r.width)));
  scrub(box, k);
  if (preview.dataset.src !== box.dataset.src) { preview.innerHTML = strip(box.dataset.src); preview.dataset.src = box.dataset.src; preview.querySelectorAll('img').forEach(i => { i.loading = 'eager'; if (i.complete) shape(i); }); }
  preview.style.display = 'block'; scrub(preview, k);
  preview.style.left = `${Math.min(r.right + 14, innerWidth - 400)}px`; preview.style.top = `${Math.max(8, Math.min(r.top - 60, innerHeight - preview.offsetHeight - 8))}px`;
});
function shade(v) { if (v === null) return ['#eef0f3', '#a9b2c0']; const stops = [[244, 247, 250], [158, 202, 225], [33, 113, 181], [8, 48, 107]], at = Math.min(Math.max(v, 0), 1) * 3, low = Math.min(Math.floor(at), 2); const c = stops[low].map((a, i) => Math.round(a + (stops[low + 1][i] - a) * (at - low))); return [`rgb(${c})`, c[0] + c[1] + c[2] < 380 ? '#fff' : '#1c2430']; }
function matrix(pack, cast, rows, same) {
  const head = `<tr><th></th>${cast.map(c => `<th>${esc(c)}</th>`).join('')}</tr>`;
  const body = rows.map((line, i) => `<tr><th>${esc(cast[i])}</th>${line.map((v, j) => { const [b, f] = shade(v); return `<td style="background:${b};color:${f}" class="${i !== j && v !== null && v >= same ? 'bleed' : ''}">${v === null ? '–' : v.toFixed(2)}</td>`; }).join('')}</tr>`).join('');
  return `<div class="card matrix"><h3>${esc(pack)} <span class="way">cosine; the same person from ${same}</span></h3><table>${head}${body}</table></div>`;
}
