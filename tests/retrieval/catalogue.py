"""A small shop whose titles follow the grammar of distributors."""

from __future__ import annotations

from retrieval.catalogue import Product

COLOURS = ("Black", "Cyan", "Magenta", "Yellow")


def shop() -> list[Product]:
    """Toner, printers, notebooks and notebook cases of a few brands."""
    products = []
    for n in range(12):
        brand = ("Brother", "Samsung")[n % 2]
        name = f"TN-{3100 + n}"
        products.append(
            Product(
                id=f"toner{n}",
                brand=brand,
                name=name,
                title=f"{brand} {name} toner cartridge Original {COLOURS[n % 4]} 1 pc(s)",
                description=f"{name}, {2000 + n} pages, laser printer toner",
                attributes={
                    "printing colours": COLOURS[n % 4],
                    "black toner page yield": str(2000 + n),
                    "compatibility": f"HL-{5200 + n // 4}, MFC-{8400 + n // 4}N",
                },
            )
        )
        products.append(
            Product(
                id=f"printer{n}",
                brand=brand,
                name=f"HL-{5200 + n}",
                title=f"{brand} HL-{5200 + n} laser printer 1200 x 1200 DPI A4",
                description="Compact mono printer",
                attributes={"print technology": "Laser", "maximum resolution": "1200 x 1200"},
            )
        )
        maker = ("Lenovo", "Acer", "MSI")[n % 3]
        line = ("ThinkPad", "Aspire", "Modern")[n % 3]
        products.append(
            Product(
                id=f"notebook{n}",
                brand=maker,
                name=f"X{100 + n}",
                title=f'{maker} {line} X{100 + n} notebook {COLOURS[0]} 35.6 cm (14")',
                description="Portable computer, ultrabook laptop",
                attributes={
                    "display diagonal": "14",
                    "operating system installed": ("Windows 10", "Windows 11")[n % 2],
                },
            )
        )
        case = ("Targus", "Case Logic")[n % 2]
        products.append(
            Product(
                id=f"case{n}",
                brand=case,
                name=f"TBC{200 + n}",
                title=f"{case} TBC{200 + n} notebook case {('Nylon', 'Leather')[n % 2]}",
                description="Messenger laptop bag",
                attributes={"material": ("Nylon", "Leather")[n % 2], "case type": ("Sleeve", "Backpack")[n % 2]},
            )
        )
    return products
