// An image or a side-by-side clip before and after restoration on one canvas, with a divider, zoom and pan.

const MAX_SCALE = 16 // device pixels for each pixel of the image
const GRAB_PX = 28 // largest distance from the divider, in CSS pixels, at which a zoomed view moves the divider
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

  const fitScale = () => canvas.width / media.width // device pixels for each pixel of the image at zoom 1
  const maxZoom = () => Math.max(1, MAX_SCALE / fitScale())

  function draw() {
    if (!media || !canvas.width) return
    const [width, height] = [media.width / zoom, media.height / zoom]
    const [left, top] = [media.width * centre[0] - width / 2, media.height * centre[1] - height / 2]
    const [before, after] = [split, 1 - split]
    context.imageSmoothingEnabled = fitScale() * zoom < 2
    context.clearRect(0, 0, canvas.width, canvas.height)
    if (before > 0) media.draw(0, [left, top, width * before, height], [0, 0, canvas.width * before, canvas.height])
    if (after > 0) {
      const x = canvas.width * before
      media.draw(1, [left + width * before, top, width * after, height], [x, 0, canvas.width - x, canvas.height])
    }
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
    const width = Math.min(view.clientWidth, (maxHeight() * media.width) / media.height)
    stage.style.width = `${width}px`
    stage.style.height = `${(width * media.height) / media.width}px`
    canvas.width = Math.round(width * devicePixelRatio)
    canvas.height = Math.round((width * devicePixelRatio * media.height) / media.width)
    draw()
  }

  function centreOn(x, y) { // shares of the image, limited so that the image fills the canvas
    const margin = 0.5 / zoom
    centre = [x, y].map((share) => Math.min(1 - margin, Math.max(margin, share)))
    canvas.style.touchAction = zoom > 1 ? "none" : "pan-y"
    draw()
  }

  function zoomTo(target, fixed = [0.5, 0.5]) { // `fixed`: point of the canvas that does not move
    const next = Math.min(maxZoom(), Math.max(1, target))
    const [x, y] = centre.map((share, axis) => share + (fixed[axis] - 0.5) * (1 / zoom - 1 / next))
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
      centreOn(centre[0] - (now[0] - last[0]) / zoom, centre[1] - (now[1] - last[1]) / zoom)
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
