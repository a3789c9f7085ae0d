"""The prostate sets of domain generalization: T2 volumes of six sites.

    SOURCE/BIDMC/Case00.nii.gz   and Case00_segmentation.nii.gz (or _Segmentation); likewise HK,
                                 I2CVB, ISBI (or RUNMC), ISBI_1.5 (or BMC) and UCL
"""

import pathlib
import re
import zlib

import numpy as np

from fedgen_jax.data.folder.reading import extra
from fedgen_jax.data.folder.text import DataError
from fedgen_jax.data.public import layout
from fedgen_jax.data.public.layout import PublicSet

FOLDERS = {  # by center; the later release names two sites after their hospitals
    'BIDMC': ('BIDMC',), 'HK': ('HK',), 'I2CVB': ('I2CVB',), 'ISBI': ('ISBI', 'RUNMC'),
    'ISBI_1.5': ('ISBI_1.5', 'BMC'), 'UCL': ('UCL',),
}
CLASSES = ('background', 'prostate')


def prepare(source: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """Zones 1 and 2 of a mask become one class, as in the published code, on its image's grid."""
    rows = []
    for center, names in FOLDERS.items():
        folder = layout.found(source, *names)
        images = sorted(f for f in folder.iterdir() if re.fullmatch(r'Case\d+\.nii\.gz', f.name))
        if not images:
            raise DataError(f'{folder}: has no CaseNN.nii.gz: unpack the set as published')
        for image in images:
            case = image.name.removesuffix('.nii.gz')
            mask = layout.found(
                folder, f'{case}_segmentation.nii.gz', f'{case}_Segmentation.nii.gz'
            )
            name = f'{center}/{image.name}'
            (root / 'masks' / center).mkdir(parents=True, exist_ok=True)
            write_mask(image, mask, root / 'masks' / name)
            rows.append({
                'image': layout.place(image, root, f'images/{name}'), 'center': center,
                'patient': case, 'mask': f'masks/{name}',
            })
    layout.write_classes(root, mask_classes=CLASSES)
    layout.write_manifest(root, rows)
    return ()


def write_mask(image: pathlib.Path, mask: pathlib.Path, target: pathlib.Path) -> None:
    """Pairs voxels by their place in the file, as the published code does."""
    nib = extra('nibabel')
    try:
        volume, marked = nib.load(image), nib.load(mask)
        zone = np.asarray(marked.dataobj)
    except (OSError, EOFError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        raise DataError(f'{mask}: cannot be read ({error}): download it again') from error
    if volume.shape != marked.shape:
        raise DataError(
            f'{mask}: {list(marked.shape)} voxels, its image {list(volume.shape)}: take both as '
            'published'
        )
    if not np.isin(zone, (0, 1, 2)).all():
        raise DataError(f'{mask}: has values other than 0, 1 and 2: take it as published')
    nib.save(nib.Nifti1Image((zone > 0).astype(np.uint8), volume.affine), target)


SET = PublicSet(
    name='prostate_saml',
    task='segmentation',
    images='116 volumes',
    centers=tuple(FOLDERS),
    size='not verified',
    checksum='',
    licence='that of each source (NCI-ISBI 2013, I2CVB, PROMISE12); none is stated for the whole',
    citation='Liu et al., 2020, Shape-aware meta-learning, MICCAI; Liu et al., 2020, MS-Net, IEEE '
             'Transactions on Medical Imaging 39:2713; in a federation: Liu et al., 2021, FedDG, '
             'CVPR',
    url='https://liuquande.github.io/SAML/',
    access='a link on the page',
    source='BIDMC, HK, I2CVB, ISBI (RUNMC), ISBI_1.5 (BMC) and UCL, each with CaseNN.nii.gz and '
           'CaseNN_segmentation.nii.gz',
    prepare=prepare,
    caveats='All slices are kept, also those without prostate. The split is drawn '
            'by case. Needs the extra `medical`.',
)
