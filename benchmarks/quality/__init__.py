"""PSNR, SSIM and flicker of engines against ground truth."""
