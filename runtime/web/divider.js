// An image or a side-by-side clip before and after restoration on one canvas, with a divider, zoom and pan.

const MAX_SCALE = 16 // device pixels for each pixel of the image
const GRAB_PX = 28 // largest distance from the divider, in CSS pixels, at which a zoomed view moves the divider
const MIN_PX = 160 // smallest width and height of the canvas, in CSS pixels: a very wide or high image has margins
const MARGIN_PX = 32 // CSS pixels below the image, between it and the controls and below them

export default function ({ data, parentElement }) {
  const view = parentElement.querySelector(".deblur-view")
  if (view.dataset.key === data.key) return undefined
  view.dataset.key = data.key
  const [stage, canvas, line] = [".deblur-stage", ".deblur-canvas", ".deblur-line"].map((name) => view.querySelector(name))
  const seek = view.querySelector("input")
  const context = canvas.getContext("2d")
  let media = null // {width, height, draw(side, source rectangle, target rectangle)}; side 0 is before, 1 is after
  let split = 0.5 // position of the divider as a share of the canvas width
  let zoom = 1 // relative to the size that fits the page
  let centre = [0.5, 0.5] // point of the image in the middle of the canvas, as shares of its width and height

  // Device pixels for each pixel of the image at zoom 1.
  const fitScale = () => Math.min(canvas.width / media.width, canvas.height / media.height)
  const maxZoom = () => Math.max(1, MAX_SCALE / fitScale())
  // Part of the width and of the height of the image that the canvas shows at a zoom; above 1 if there are margins.
  const visible = (atZoom) =>
    [canvas.width / media.width, canvas.height / media.height].map((size) => size / fitScale() / atZoom)

  function drawSide(side, from, to) { // columns of the canvas
    const scale = fitScale() * zoom
    const left = media.width * centre[0] - canvas.width / scale / 2
    const top = media.height * centre[1] - canvas.height / scale / 2
    const [x0, x1] = [Math.max(0, left + from / scale), Math.min(media.width, left + to / scale)]
    const [y0, y1] = [Math.max(0, top), Math.min(media.height, top + canvas.height / scale)]
    if (x1 <= x0 || y1 <= y0) return
    const [width, height] = [x1 - x0, y1 - y0]
    media.draw(side, [x0, y0, width, height], [(x0 - left) * scale, (y0 - top) * scale, width * scale, height * scale])
  }

  function draw() {
    if (!media || !canvas.width) return
    context.imageSmoothingEnabled = fitScale() * zoom < 2
    context.clearRect(0, 0, canvas.width, canvas.height)
    drawSide(0, 0, canvas.width * split)
    drawSide(1, canvas.width * split, canvas.width)
    line.style.left = `${100 * split}%`
    line.setAttribute("aria-valuenow", Math.round(100 * split))
    view.querySelector(".deblur-zoom output").textContent = `${Math.round(100 * fitScale() * zoom / devicePixelRatio)} %`
    canvas.dataset.drawn = Number(canvas.dataset.drawn || 0) + 1
  }

  // Height that leaves the controls in the window, unless too much is above the image, as on a phone.
  function maxHeight() {
    const top = view.getBoundingClientRect().top + (view.closest("[data-testid=stMain]")?.scrollTop ?? 0)
    const room = innerHeight - top - view.querySelector(".deblur-controls").offsetHeight - MARGIN_PX
    return Math.max(room, 0.45 * innerHeight)
  }

  function resize() {
    if (!media) return
    const fitWidth = Math.min(view.clientWidth, (maxHeight() * media.width) / media.height)
    const width = Math.max(fitWidth, Math.min(MIN_PX, view.clientWidth))
    const height = Math.max((fitWidth * media.height) / media.width, MIN_PX)
    stage.style.width = `${width}px`
    stage.style.height = `${height}px`
    canvas.width = Math.round(width * devicePixelRatio)
    canvas.height = Math.round(height * devicePixelRatio)
    draw()
  }

  function centreOn(x, y) { // shares of the image, limited so that the image fills the canvas where it can
    const margins = visible(zoom).map((share) => Math.min(0.5, share / 2))
    centre = [x, y].map((share, axis) => Math.min(1 - margins[axis], Math.max(margins[axis], share)))
    canvas.style.touchAction = zoom > 1 ? "none" : "pan-y"
    draw()
  }

  function zoomTo(target, fixed = [0.5, 0.5]) { // `fixed`: point of the canvas that does not move
    const next = Math.min(maxZoom(), Math.max(1, target))
    const [now, then] = [visible(zoom), visible(next)]
    const [x, y] = centre.map((share, axis) => share + (fixed[axis] - 0.5) * (now[axis] - then[axis]))
    zoom = next
    centreOn(x, y)
  }

  const positionOf = (event) => { // as shares of the canvas
    const box = canvas.getBoundingClientRect()
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
  }
  const moveDivider = (x) => { split = Math.min(1, Math.max(0, x)); draw() }
  const pointers = new Map() // last position of each pressed pointer, by its id
  let isPanning = false

  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId)
    const [x] = positionOf(event)
    pointers.set(event.pointerId, positionOf(event))
    isPanning = zoom > 1 && Math.abs(x - split) * canvas.clientWidth > GRAB_PX
    if (!isPanning && pointers.size === 1) moveDivider(x)
  }
  canvas.onpointermove = (event) => {
    if (!pointers.has(event.pointerId)) return
    const [last, now] = [pointers.get(event.pointerId), positionOf(event)]
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1]
      const distance = ([x, y]) => Math.hypot((x - other[0]) * canvas.clientWidth, (y - other[1]) * canvas.clientHeight)
      zoomTo((zoom * distance(now)) / Math.max(1, distance(last)), other)
    } else if (isPanning) {
      const [x, y] = centre.map((share, axis) => share - (now[axis] - last[axis]) * visible(zoom)[axis])
      centreOn(x, y)
    } else {
      moveDivider(now[0])
    }
    pointers.set(event.pointerId, now)
  }
  canvas.onpointerup = canvas.onpointercancel = (event) => pointers.delete(event.pointerId)
  canvas.ondblclick = (event) => zoomTo(zoom > 1 ? 1 : 4, positionOf(event))
  const onWheel = (event) => { // zooms with Ctrl, which touchpads report for a pinch; scrolls the page without it
    if (!event.ctrlKey) return
    event.preventDefault()
    zoomTo(zoom * 2 ** (-event.deltaY / 100), positionOf(event))
  }
  canvas.addEventListener("wheel", onWheel, { passive: false })
  line.onkeydown = (event) => {
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key]
    if (!step) return
    event.preventDefault()
    moveDivider(split + step)
  }
  view.onclick = (event) => {
    const action = event.target.dataset.do
    if (action === "in") zoomTo(zoom * 2)
    if (action === "out") zoomTo(zoom / 2)
    if (action === "fit") zoomTo(1)
  }

  const loadImage = async (url) => {
    const image = new Image()
    image.src = url
    await image.decode()
    return image
  }

  async function showImages() {
    const images = await Promise.all([loadImage(data.before), loadImage(data.after)])
    const [{ naturalWidth: width, naturalHeight: height }] = images
    media = { width, height, draw: (side, source, target) => context.drawImage(images[side], ...source, ...target) }
    resize()
  }

  let video = null
  async function showVideo() {
    const blob = await (await fetch(data.video)).blob()
    video = Object.assign(document.createElement("video"), {
      muted: true, loop: true, playsInline: true, src: URL.createObjectURL(blob),
    })
    const play = view.querySelector("[data-do=play]")
    play.hidden = seek.hidden = false
    play.onclick = () => (video.paused ? video.play() : video.pause())
    seek.oninput = () => { video.currentTime = seek.value * video.duration }
    video.onplay = video.onpause = () => { play.textContent = video.paused ? "Play" : "Pause" }
    video.onloadeddata = () => {
      const [width, height] = [video.videoWidth / 2, video.videoHeight]
      const drawHalf = (side, [x, y, w, h], target) => context.drawImage(video, x + side * width, y, w, h, ...target)
      media = { width, height, draw: drawHalf }
      resize()
    }
    video.onseeked = draw
    const onFrame = () => {
      seek.value = video.currentTime / video.duration
      draw()
      video.requestVideoFrameCallback(onFrame)
    }
    video.requestVideoFrameCallback(onFrame)
    await video.play()
  }

  const showError = (error) => {
    view.dataset.failed = stage.textContent = `This browser cannot show the result: ${error.message}`
  }
  ;(data.video ? showVideo() : showImages()).catch(showError)
  const observer = new ResizeObserver(resize)
  observer.observe(view)
  observer.observe(view.closest("[data-testid=stMainBlockContainer]") ?? view) // what is above may appear or vanish
  addEventListener("resize", resize)
  return () => {
    observer.disconnect()
    removeEventListener("resize", resize)
    if (video) {
      video.pause()
      URL.revokeObjectURL(video.src)
    }
  }
}
